"""Remember the sampled token ids of answers, so that the next prompt reuses them and is not tokenized again.

Tokenizing a text need not give back the tokens that spelled it, and a prompt that differs from the cache in one token is computed
again from there on.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from mixcli.llama.model import Vocab
from mixcli.prompts.detokenizer import Detokenizer
from mixcli.prompts.messages import Message

MAX_ANSWERS = 512  # answers; the oldest is forgotten
MAX_TOKENS = 1 << 20  # of all of them, each of which takes 36 bytes


class AnswerTokenCache:
    """Remembers answers of this process, and checks those that a client remembers."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._known: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._n_tokens = 0

    def learn(self, text: str, tokens: Sequence[int]) -> None:
        """Remember an answer, where its tokens spell exactly its text (a stop text or an interrupted character leaves a difference)."""
        if text and self._spell(tokens, text):
            self._n_tokens += len(tokens) - len(self._known.pop(text, ()))
            self._known[text] = tuple(tokens)
            while len(self._known) > MAX_ANSWERS or self._n_tokens > MAX_TOKENS:
                self._n_tokens -= len(self._known.popitem(last=False)[1])

    def recall(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the tokens of every answer that is known; a client's tokens count only if they spell its text.

        A last message of the assistant's is to be continued and stays text.
        """
        return [
            self._recalled(message)
            if message.role == "assistant" and message is not messages[-1]
            else message
            for message in messages
        ]

    def _recalled(self, message: Message) -> Message:
        if message.calls or message.reasoning:  # of which the text is a part
            return replace(message, tokens=())
        if message.tokens and self._spell(message.tokens, message.content):
            return message
        return replace(message, tokens=self._known.get(message.content, ()))

    def _spell(self, tokens: Sequence[int], text: str) -> bool:
        n_vocab = self._vocab.n_tokens
        if (
            len(tokens) > len(text.encode("utf-8", "replace")) + 1
        ):  # each has a byte, one may be the first space
            return False
        if not all(
            0 <= token < n_vocab and self._vocab.piece(token) for token in tokens
        ):  # no control tokens
            return False
        writer = Detokenizer(self._vocab)
        return "".join(writer.push(token) for token in tokens) == text
