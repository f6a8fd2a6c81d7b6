"""Tools in formats that have no place for them, and ids of calls."""

from collections.abc import Callable

import pytest
from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

from mixcli.errors import BadRequest
from mixcli.llama.model import Model
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message, PromptOptions, Tool, ToolCall
from mixcli.prompts.tool_json import nine, value_of
from quantize.source import text
from tests.support.models import mistral_file

OPTIONS = PromptOptions((Tool("add", "Add.", '{"type": "object"}'),))
CALLED = [
    Message("user", "1 + 1?"),
    Message("assistant", "Well.", calls=(ToolCall("a", "add", '{"n":[1,1]}'), ToolCall("b", "add", "{}"))),
    Message("tool", "2", call_id="a"),
    Message("tool", "<|im_end|>", call_id="b"),
]
CALLS = 'Well.\n<tool_call>\n{"name": "add", "arguments": {"n": [1, 1]}}\n</tool_call>\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
RESULTS = "<tool_response>\n2\n</tool_response>\n<tool_response>\n<|im_end|>\n</tool_response>"


def test_chatml_writes_tools_as_hermes_does(smol: Model) -> None:
    chat, specials = ChatFormat.of(smol), smol.vocab.specials
    ids = chat.encode([Message("system", "Be kind."), *CALLED], OPTIONS)
    shown = "".join(
        smol.vocab.text(i) if i in chat.tokenizer.reserved else smol.vocab.piece(i).decode() for i in ids
    )
    system, _, answer, results, start = shown.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe kind.\n\nYou can call functions.")
    assert '{"type": "function", "function": {"name": "add", "description": "Add.", "parameters"' in system
    assert answer == f"assistant\n{CALLS}<|im_end|>\n"
    assert results == f"tool\n{RESULTS}<|im_end|>\n" and start == "assistant\n"
    assert ids.count(specials["<|im_end|>"]) == 4  # what a tool wrote is none of them


def test_the_first_version_of_mistral_writes_them_as_text(vocab_model: Callable[..., Model]) -> None:
    model = vocab_model("v1")
    ids = ChatFormat.of(model).encode(CALLED, OPTIONS)
    text = b"".join(model.vocab.piece(i) for i in ids).decode()
    assert text.startswith(" [INST] You can call functions.") and "\n\n1 + 1? [/INST]" in text
    assert f"[/INST] {CALLS}" in text and text.endswith(f" [INST] {RESULTS} [/INST]")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([Message("user", "a"), Message("tool", "2", call_id="a")], "messages.1.tool_call_id"),
        (CALLED[:3], "messages"),
        (CALLED[:2], "messages"),
        ([*CALLED[:3], Message("user", "?"), CALLED[3]], "messages"),
        ([*CALLED, CALLED[3]], "messages.4.tool_call_id"),
    ],
)
def test_calls_and_results_belong_together(smol: Model, messages: list[Message], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ChatFormat.of(smol).encode(messages, OPTIONS)
    assert caught.value.param == param


def test_effort_is_refused_where_a_format_has_no_place_for_it(
    smol: Model, vocab_model: Callable[..., Model]
) -> None:
    for model, effort in ((smol, "high"), (vocab_model("v15"), "medium")):
        with pytest.raises(BadRequest, match=f"reasoning_effort is '{effort}'"):
            ChatFormat.of(model).encode(CALLED[:1], PromptOptions((), effort))


def test_ids_become_nine_letters_and_digits() -> None:
    foreign = [f"call_{i}" for i in range(1000)] + ["", "x" * 5000, "\ud800", "é"]
    found = [nine(one) for one in foreign]
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in found)
    assert len(set(found)) == len(foreign) and found == [nine(one) for one in foreign]
    assert nine("aB3dE6gH9") == "aB3dE6gH9"


def test_a_template_that_demands_short_ids_gets_them(vocab_model: Callable[..., Model]) -> None:
    """Mistral's own template refuses any other id; one that fits goes in as it is."""
    template = convert_tokenizer_to_chat_template(mistral_file("v3"))
    model = vocab_model("v3", {"tokenizer.chat_template": text(template)})
    chat = ChatFormat.of(model)
    assert (chat.name, chat.syntax.style) == ("jinja", "list")
    for call_id, shown in (("call_1", nine("call_1")), ("aB3dE6gH9", "aB3dE6gH9")):
        call = Message("assistant", "", calls=(ToolCall(call_id, "add", "{}"),))
        ids = chat.encode([CALLED[0], call, Message("tool", "2", call_id=call_id)], OPTIONS)
        assert b"".join(model.vocab.piece(i) for i in ids).decode().count(f'"{shown}"') == 2


def test_what_python_cannot_write_again_stays_text() -> None:
    for n, is_read in ((90, True), (101, False), (900, False)):
        text = '{"a": ' * n + "1" + "}" * n
        assert isinstance(value_of(text), dict) == is_read
    assert value_of("[" + "[]," * 200 + "[]]") == [[]] * 201
    assert value_of("[" * 99999) == "[" * 99999 and value_of("9" * 5000) == "9" * 5000
