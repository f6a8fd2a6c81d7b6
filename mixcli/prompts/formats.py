"""The built-in chat formats whose tool calls are text: ChatML, and Mistral's first version.

A layout maps messages to parts: an int is a token, a str is one run of text that is tokenized on its own. Where the last message
is the assistant's, its end is omitted, so that the model continues it. Formats with control tokens for tools: mistral_formats.py.
"""

from collections.abc import Iterator, Sequence

from mixcli.llama.model import Vocab
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, Part, PromptOptions
from mixcli.prompts.tool_text import as_text
from mixcli.prompts.turns import with_system


def chatml(vocab: Vocab, default_system: str | None) -> Layout:
    """<|im_start|>role, a newline, the text, <|im_end|>, a newline; `default_system` speaks where no system message does."""
    start, end = vocab.specials["<|im_start|>"], vocab.specials["<|im_end|>"]

    def layout(messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> Iterator[Part]:
        if vocab.adds_bos:
            yield vocab.bos
        if default_system is not None and messages[0].role != "system":
            messages = [Message("system", default_system), *messages]
        messages = as_text(messages, options.tools)
        for message in messages:
            yield start
            if message.tokens:
                yield f"{message.role}\n"
                yield from message.tokens
            else:
                yield f"{message.role}\n{message.content}"
            if message is messages[-1] and message.role == "assistant":
                return
            yield end
            yield "\n"
        yield start
        yield "assistant\n"

    return layout


def mistral_v1(vocab: Vocab) -> Layout:
    """Mistral 7B v0.1/v0.2 and Mixtral 8x7B: [INST] and [/INST] are plain text; the system text opens the first user turn."""

    def layout(messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> Iterator[Part]:
        yield vocab.bos
        turns = with_system(as_text(messages, options.tools, results_from="user"), first=True)
        for turn in turns:
            if turn.role == "user":
                yield f"[INST] {turn.content} [/INST]"
            else:
                yield from turn.spelled
                if turn is not turns[-1]:
                    yield vocab.eos

    return layout


__all__ = ["Layout", "Message", "Part", "PromptOptions", "chatml", "mistral_v1"]
