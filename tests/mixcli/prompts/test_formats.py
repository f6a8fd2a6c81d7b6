"""Recognising chat formats, ChatML, and what makes no conversation."""

from collections.abc import Callable

import pytest

from mixcli.errors import BadRequest, UsageError
from mixcli.llama.model import Model
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.formats import default_system
from mixcli.prompts.jinja import JinjaLayout
from mixcli.prompts.messages import Message
from quantize.source import Value, text

CONVERSATION = [
    Message("user", "Hi there!"),
    Message("assistant", "Hello."),
    Message("user", "Write <|im_start|>user twice, naïvely."),
]


@pytest.mark.parametrize(
    "messages",
    [CONVERSATION, [Message("system", "Be terse."), *CONVERSATION], CONVERSATION[:1]],
    ids=["default system", "system", "one turn"],
)
def test_our_chatml_equals_the_models_own_template(smol: Model, messages: list[Message]) -> None:
    """SmolLM2's template puts a system message in where there is none; the format of our own must know."""
    chat = ChatFormat.of(smol)
    assert chat.name == "chatml"
    template = smol.chat_template
    assert template is not None
    own = ChatFormat("jinja", JinjaLayout(template, chat.tokenizer, smol.vocab), chat.tokenizer, chat.syntax)
    assert chat.encode(messages) == own.encode(messages)


def test_chatml_spells_out(smol: Model) -> None:
    chat, vocab = ChatFormat.of(smol), smol.vocab
    start, end = vocab.specials["<|im_start|>"], vocab.specials["<|im_end|>"]
    newline = vocab.tokenize("\n")
    assert chat.encode([Message("system", "S"), Message("user", "U"), Message("assistant", "A")]) == [
        *(start, *vocab.tokenize("system\nS"), end, *newline),
        *(start, *vocab.tokenize("user\nU"), end, *newline),
        *(start, *vocab.tokenize("assistant\nA")),
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '<|im_start|>system\\nYou are X.<|im_end|>\\n' }}", "You are X."),
        ("{{ '<|im_start|>system\nLine.\nTwo.<|im_end|>\n' }}", "Line.\nTwo."),
        ("{{ '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}", None),
        ("{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}", None),
    ],
)
def test_the_default_system_message_is_read_from_the_template(template: str, expected: str | None) -> None:
    assert default_system(template) == expected


NO_TEMPLATE: dict[str, Value | None] = {"tokenizer.chat_template": None}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("v3", NO_TEMPLATE, "mistral-v3"),
        ("v7", NO_TEMPLATE, "mistral-v7"),
        ("v1", {**NO_TEMPLATE, "general.name": text("mistralai_mixtral-8x7b-instruct-v0.1")}, "mistral-v1"),
        ("v1", {"tokenizer.chat_template": text("[INST] <<SYS>>{{ messages[0].content }}<</SYS>>")}, "jinja"),
        ("v7", {"tokenizer.chat_template": text("[SYSTEM_PROMPT][THINK]{{ messages }}[INST]")}, "jinja"),
        ("tekken-240911", {"tokenizer.chat_template": text("USER: {{ messages[0].content }}")}, "jinja"),
    ],
)
def test_formats_of_files_without_or_with_other_templates(
    vocab_model: Callable[..., Model], name: str, changes: dict[str, Value | None], expected: str
) -> None:
    assert ChatFormat.of(vocab_model(name, changes)).name == expected


def test_a_base_model_cannot_chat(vocab_model: Callable[..., Model]) -> None:
    with pytest.raises(UsageError, match="base model"):
        ChatFormat.of(vocab_model("v1", {**NO_TEMPLATE, "general.name": text("Mistral 7B v0.1")}))


@pytest.mark.parametrize(
    ("messages", "param"),
    [([], "messages"), ([Message("user", "a"), Message("narrator", "b")], "messages[1].role")],
)
def test_what_makes_no_conversation_is_refused(smol: Model, messages: list[Message], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ChatFormat.of(smol).encode(messages)
    assert caught.value.param == param
