"""The built-in chat formats, and which of them a template or a vocabulary is for; ChatML and Mistral's first version are laid out here.

A layout maps messages to parts: an int is a token, a str is one run of text that is tokenized on its own. Where the last message
is the assistant's, its end is omitted, so that the model continues it. Formats with control tokens for tools: mistral_formats.py.
"""

import re
from collections.abc import Iterator, Sequence

from mixcli.llama.model import Vocab
from mixcli.prompts.format_check import fingerprint
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, Part, PromptOptions
from mixcli.prompts.mistral_formats import VERSIONS, mistral, suits
from mixcli.prompts.tool_text import as_text
from mixcli.prompts.turns import with_system

_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}]{0,8000}?)<\|im_end\|>")

# Templates that need no probing (test_format_check.py probes them): sha256 of the text
KNOWN = {
    # quantize/vocab/mistral_jinja.py
    "8e637d522e1ec1e89127d8f1d2bde2c01cc079daad984cc33339a10cafe967da": "mistral-v1",
    "d233eeab6e631035b609bc54f9a27b68e008a3a08af6da6734b1c6407b10ef24": "mistral-v2",
    "5e8e4aad1d1dbdc318e31278d0decf53718ad4a56661e1663510b0ce235a9d73": "mistral-v3",
    "ab10ce0d790af9d02f508d7217f8f32a36130c301630adcd8c6965785d6206f6": "mistral-v7",
    "87448fd5e0868e6cf887a8cd29e5ae4d7628a6186127ee5f48aa98e64f94653f": "mistral-v11",
    "9c432d08e2343d62fa9ba4af547343ad137c2b0494ac83048b377e1ebd132701": "mistral-v13",
    "99c65ddca6e7c742700000721f369f12920c9b4f59b4e651168d5e9cab1fcf1d": "mistral-v15",
    # SmolLM2, the demo
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "chatml",
}


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


def candidates_for(template: str, vocab: Vocab) -> list[str]:
    """Return the names of the built-in formats that a template may be, by its markers and by the tokens that the vocabulary has."""
    found = []
    if "<|im_start|>" in template and _has_chatml(vocab):
        found.append("chatml")
    if "[INST]" in template and "[INST]" in vocab.specials:
        found += [version_name(version) for version in VERSIONS if suits(version, vocab)]
    elif "[INST]" in template and vocab.is_sentencepiece:
        found.append("mistral-v1")
    return found


def known_format(template: str) -> str | None:
    """Return the name of the format that a well-known template has; None for others."""
    return KNOWN.get(fingerprint(template))


def for_vocabulary(names: Sequence[str], vocab: Vocab) -> str:
    """Return the one of some formats, newest first, that a vocabulary was made for, where they differ in tools only."""
    return names[0] if len(names) == 1 or _newest(vocab) not in names else _newest(vocab)


def _newest(vocab: Vocab) -> str:
    """Return the version that a vocabulary with control tokens was made for, as far as its tokens show it."""
    unsure = () if "[THINK]" in vocab.specials else (13,)  # as 11 without reasoning
    return version_name(
        next(one for one in VERSIONS if suits(one, vocab) and not (one in unsure and suits(11, vocab)))
    )


def format_without_template(vocab: Vocab, model_name: str) -> str | None:
    """Guess the format of a file from 2023, made before GGUF stored templates; None for a base model."""
    if _has_chatml(vocab):
        return "chatml"
    if "[INST]" in vocab.specials:
        return _newest(vocab)
    name = model_name.lower()
    if vocab.is_sentencepiece and any("instruct" in name.partition(one)[2] for one in ("mixtral", "mistral")):
        return "mistral-v1"
    return None


def _has_chatml(vocab: Vocab) -> bool:
    return "<|im_start|>" in vocab.specials and "<|im_end|>" in vocab.specials


def default_system(template: str) -> str | None:
    """Return the system message that a ChatML template puts in where the conversation has none."""
    for match in _DEFAULT_SYSTEM.finditer(template):
        if not re.search(r"""["']\s*[+~]""", match[1]):
            return match[1].replace("\\n", "\n")
    return None


def version_name(version: int) -> str:
    """Return the name of a version of Mistral's format."""
    return f"mistral-v{version}"


def layout_of(name: str, template: str, vocab: Vocab) -> Layout:
    """Return the layout of a built-in format."""
    if name == "chatml":
        return chatml(vocab, default_system(template))
    return mistral_v1(vocab) if name == version_name(1) else mistral(vocab, version_of(name))


def version_of(name: str) -> int:
    """Return the version that a name such as "mistral-v3" has."""
    return int(name.removeprefix("mistral-v"))
