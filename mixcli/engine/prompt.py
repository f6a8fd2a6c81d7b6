"""Chat messages become token ids; what a person wrote never becomes a control token.

A layout (formats.py, templates.py) turns messages into parts: token ids for the template's control tokens, text for the rest,
each text one run as the model saw it in training. The text goes through content.py, which gives ordinary tokens only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixcli.engine.content import ContentTokenizer
from mixcli.engine.formats import Layout, Message, chatml, mistral_v1, mistral_v3, mistral_v7
from mixcli.engine.llama import Model, Vocab
from mixcli.errors import BadRequest, UsageError

ROLES = ("system", "user", "assistant")

# What says that a template that looks like ChatML or Mistral has a will of its own, and must be run as it stands
_NO_PLAIN_CHATML = ("<|im_sep|>", "<end_of_utterance>", "<think>", "tool")
_NO_PLAIN_MISTRAL = ("<<SYS>>", "[THINK]", "[MODEL_SETTINGS]")

_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}]*?)<\|im_end\|>")


@dataclass(frozen=True)
class ChatFormat:
    """How one model wants its conversations: `name` ("mistral-v3", "chatml", "jinja") and what encodes them."""

    name: str
    layout: Layout
    tokenizer: ContentTokenizer

    @classmethod
    def of(cls, model: Model) -> "ChatFormat":
        """Recognise the format from the chat template and the vocabulary; raise UsageError for a base model, which has none."""
        template = model.chat_template or ""
        tokenizer = ContentTokenizer(model.vocab, template)
        name = recognise(template, model.vocab, model.metadata("general.name") or model.path.name)
        if name is None:
            raise UsageError(
                f"{model.path.name} has no chat template: it is a base model that continues text and cannot chat; "
                "take the Instruct version of it"
            )
        return cls(name, _BUILDERS[name](template, tokenizer, model.vocab), tokenizer)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Give the prompt's token ids, ready for the assistant's answer.

        Where the last message is the assistant's own, the answer continues it. Raises BadRequest for messages that make no
        conversation.
        """
        check(messages)
        ids: list[int] = []
        for part in self.layout(messages):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.tokenizer.encode(part)
        return ids

    def encode_answer(self, text: str) -> list[int]:
        """Give the token ids of a text as the assistant would write it behind a prompt."""
        return self.tokenizer.encode(text)


def check(messages: Sequence[Message]) -> None:
    """Raise BadRequest, naming the message, for an empty conversation or a role that does not exist."""
    if not messages:
        raise BadRequest("messages is empty; a conversation has at least one message", param="messages")
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            raise BadRequest(
                f"messages[{i}].role is {message.role!r}; it can be {', '.join(ROLES)}",
                param=f"messages[{i}].role",
            )


def recognise(template: str, vocab: Vocab, model_name: str) -> str | None:
    """Name the format that a template text and a vocabulary belong to; None where there is neither."""
    return _from_template(template, vocab) if template else _from_vocabulary(vocab, model_name)


def _from_template(template: str, vocab: Vocab) -> str:
    tokens = vocab.specials
    if "<|im_start|>" in template and not _any_in(_NO_PLAIN_CHATML, template) and _has_chatml(vocab):
        return "chatml"
    if "[INST]" not in template or _any_in(_NO_PLAIN_MISTRAL, template):
        return "jinja"
    if "[INST]" in tokens:
        return "mistral-v7" if "[SYSTEM_PROMPT]" in template and "[SYSTEM_PROMPT]" in tokens else "mistral-v3"
    return "mistral-v1" if vocab.is_sentencepiece else "jinja"


def _from_vocabulary(vocab: Vocab, model_name: str) -> str | None:
    """Guess for the files of 2023, made before templates were kept in GGUF."""
    if _has_chatml(vocab):
        return "chatml"
    if "[INST]" in vocab.specials:
        return "mistral-v7" if "[SYSTEM_PROMPT]" in vocab.specials else "mistral-v3"
    if vocab.is_sentencepiece and re.search(r"(?i)(mi[sx]tral).*instruct", model_name):
        return "mistral-v1"
    return None


def _has_chatml(vocab: Vocab) -> bool:
    return "<|im_start|>" in vocab.specials and "<|im_end|>" in vocab.specials


def _any_in(words: Sequence[str], text: str) -> bool:
    return any(word in text for word in words)


def default_system(template: str) -> str | None:
    """Give the system message that a ChatML template puts in where the conversation has none."""
    for match in _DEFAULT_SYSTEM.finditer(template):
        if not re.search(r"""["']\s*[+~]""", match[1]):
            return match[1].replace("\\n", "\n")
    return None


def _build_jinja(template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> Layout:
    from mixcli.engine.templates import JinjaLayout

    return JinjaLayout(template, tokenizer, vocab)


_BUILDERS: dict[str, Callable[[str, ContentTokenizer, Vocab], Layout]] = {
    "chatml": lambda template, _, vocab: chatml(vocab, default_system(template)),
    "mistral-v1": lambda _template, _, vocab: mistral_v1(vocab),
    "mistral-v3": lambda _template, _, vocab: mistral_v3(vocab),
    "mistral-v7": lambda _template, _, vocab: mistral_v7(vocab),
    "jinja": _build_jinja,
}
