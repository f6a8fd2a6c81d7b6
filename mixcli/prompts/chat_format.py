"""Turn chat messages into token ids; user text never becomes a control token.

A layout (formats.py, jinja.py) turns messages into parts: token ids for the template's control tokens, text for the rest,
each text one run as the model saw it in training. The text goes through content_tokenizer.py, which gives ordinary tokens only.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mixcli.errors import BadRequest, UsageError
from mixcli.llama.model import Model, Vocab
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.format_check import fingerprint, first_alike
from mixcli.prompts.formats import Layout, Message, chatml, mistral_v1, mistral_v3, mistral_v7

ROLES = ("system", "user", "assistant")

_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}]{0,8000}?)<\|im_end\|>")


@dataclass(frozen=True)
class ChatFormat:
    """How one model wants its conversations: `name` ("mistral-v3", "chatml", "jinja") and what encodes them."""

    name: str
    layout: Layout
    tokenizer: ContentTokenizer

    @classmethod
    def of(cls, model: Model) -> "ChatFormat":
        """Recognize the format from the chat template and the vocabulary; raise UsageError for a base model, which has none."""
        template = model.chat_template or ""
        tokenizer = ContentTokenizer(model.vocab, template)
        if template:
            return cls._by_template(template, tokenizer, model.vocab)
        name = _from_vocabulary(model.vocab, model.metadata("general.name") or model.path.name)
        if name is None:
            raise UsageError(
                f"{model.path.name} has no chat template: it is a base model, which continues text and cannot chat; "
                "use the Instruct version"
            )
        return cls(name, _BUILDERS[name](template, model.vocab), tokenizer)

    @classmethod
    def _by_template(cls, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> "ChatFormat":
        """Take the format of our own that writes what the template writes, else the template itself."""
        candidates = _candidates(template, vocab)
        known = KNOWN.get(fingerprint(template))
        if known in candidates:
            return cls(known, _BUILDERS[known](template, vocab), tokenizer)
        from mixcli.prompts.jinja import JinjaLayout

        layout = JinjaLayout(template, tokenizer, vocab)
        builders = [(name, partial(_BUILDERS[name], template, vocab)) for name in candidates]
        name = first_alike(builders, template, layout.renderer, vocab)
        return (
            cls(name, _BUILDERS[name](template, vocab), tokenizer)
            if name
            else cls("jinja", layout, tokenizer)
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt's token ids, ready for the assistant's answer.

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
        """Return the token ids of a text as the assistant would write it behind a prompt."""
        return self.tokenizer.encode(text)


def check(messages: Sequence[Message]) -> None:
    """Raise BadRequest, naming the message, for an empty conversation or a role that does not exist."""
    if not messages:
        raise BadRequest("messages is empty; send at least one message", param="messages")
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            raise BadRequest(
                f"messages[{i}].role is {message.role!r}; it must be one of {', '.join(ROLES)}",
                param=f"messages[{i}].role",
            )


def _candidates(template: str, vocab: Vocab) -> list[str]:
    """Name the formats of our own that a template may be, by its markers and by the tokens that the vocabulary has."""
    found = []
    if "<|im_start|>" in template and _has_chatml(vocab):
        found.append("chatml")
    if "[INST]" in template and "[INST]" in vocab.specials:
        found += ["mistral-v7"] * ("[SYSTEM_PROMPT]" in vocab.specials) + ["mistral-v3"]
    elif "[INST]" in template and vocab.is_sentencepiece:
        found.append("mistral-v1")
    return found


def _from_vocabulary(vocab: Vocab, model_name: str) -> str | None:
    """Guess for the files of 2023, made before templates were kept in GGUF."""
    if _has_chatml(vocab):
        return "chatml"
    if "[INST]" in vocab.specials:
        return "mistral-v7" if "[SYSTEM_PROMPT]" in vocab.specials else "mistral-v3"
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


_BUILDERS: dict[str, Callable[[str, Vocab], Layout]] = {
    "chatml": lambda template, vocab: chatml(vocab, default_system(template)),
    "mistral-v1": lambda _, vocab: mistral_v1(vocab),
    "mistral-v3": lambda _, vocab: mistral_v3(vocab),
    "mistral-v7": lambda _, vocab: mistral_v7(vocab),
}

# Templates that need no probing (test_likeness.py probes them): sha256 of the text
KNOWN = {
    # quantize/vocab/mistral_templates.py
    "8e637d522e1ec1e89127d8f1d2bde2c01cc079daad984cc33339a10cafe967da": "mistral-v1",
    "5e8e4aad1d1dbdc318e31278d0decf53718ad4a56661e1663510b0ce235a9d73": "mistral-v3",
    "ab10ce0d790af9d02f508d7217f8f32a36130c301630adcd8c6965785d6206f6": "mistral-v7",
    # SmolLM2, the demo
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "chatml",
}
