"""Request bodies of a few kilobytes, or of many small values, that were made to take hours or all memory: each is refused or taken at once."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import mixcli.host.api
from mixcli.errors import BadRequest
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.completion_schema import CompletionRequest
from mixcli.host.api.json_body import load, parsed
from mixcli.host.api.responses_schema import ResponsesRequest
from mixcli.host.api.wire_model import WireModel
from mixcli.system.json_parts import MAX_PARTS
from tests.support.costly import runs

MESSAGES = '"messages": [{"role": "user", "content": "Hi"}]'


@pytest.mark.parametrize(
    "text",
    ["{" + " " * 30_000 + "," + " " * 30_000, "{" + " " * 60_000, "~" + " " * 60_000, "{" * 30_000 + " " * 30_000],
    ids=["pair", "one", "tilde", "many"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["regex", "pattern", "grammar"])
def test_blanks_in_a_repeat_count_take_no_time(text: str, place: str) -> None:
    code = f"""
import json
from mixcli.errors import BadRequest
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.json_body import parsed
blanks = {text!r}
form = {{"json": {{"type": "string", "pattern": blanks}}}} if {place == "pattern"} else {{{place!r}: blanks}}
body = {{"messages": [{{"role": "user", "content": "Hi"}}], "structured_outputs": form}}
parsed(ChatRequest, json.dumps(body).encode()).question()
print("taken")
"""
    assert runs(code) == "taken"


def models(base: type[BaseModel] = WireModel) -> Iterator[type[BaseModel]]:
    for module in pkgutil.iter_modules(mixcli.host.api.__path__):
        importlib.import_module(f"mixcli.host.api.{module.name}")
    for one in base.__subclasses__():
        yield one
        yield from models(one)


def unbounded(schema: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lists and objects whose values are all looked at, however many are wrong."""
    if isinstance(schema, dict):
        kind = schema.get("type")
        is_checked = schema.get("values_schema", {"type": "any"})["type"] != "any"
        if (kind == "list" and not (schema.get("fail_fast") and schema.get("max_length"))) or (
            kind == "dict" and is_checked and "function-before" not in path[-1:]
        ):
            yield ".".join(path)
        for name, part in schema.items():
            if name != "metadata" or "type" in part:
                yield from unbounded(part, (*path, str(kind) if name == "schema" else name))
    elif isinstance(schema, list | tuple):
        for part in schema:
            yield from unbounded(part, path)


def test_no_list_and_no_object_keeps_a_fault_of_each_of_its_values() -> None:
    found = {
        one.__name__: list(unbounded(one.__pydantic_core_schema__)) for one in (*models(), CompletionRequest)
    }
    assert len(found) > 40
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_million_wrong_blocks_take_no_memory() -> None:
    code = """
from mixcli.errors import BadRequest
from mixcli.host.api.anthropic_schema import MessagesRequest
from mixcli.host.api.json_body import parsed
body = b'{"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}], "system": [' + b"{}," * 500_000 + b"{}]}"
# limited
try:
    parsed(MessagesRequest, body)
except BadRequest as error:
    print(error.param)
"""
    assert runs(code, gib=0.5) == "system.0.type"


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        (ChatRequest, f'{{{MESSAGES}, "logit_bias": {{%s}}}}', "logit_bias: it has 5,000 fields; the limit is 4,096"),
        (ResponsesRequest, '{"input": "Hi", "metadata": {%s}}', "metadata: it has 5,000 fields; the limit is 16"),
    ],
)  # fmt: skip
def test_an_object_with_too_many_fields_is_counted_before_they_are_looked_at(
    model: type[BaseModel], body: str, says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        parsed(model, (body % ", ".join(f'"{i}": ""' for i in range(5000))).encode())


def test_a_body_of_too_many_parts_is_refused_before_it_is_parsed() -> None:
    for part in (b"{}", b"[]", b'""'):
        with pytest.raises(BadRequest, match="objects, lists and texts; the limit is 2,097,152") as caught:
            load(b"[" + part + (b"," + part) * MAX_PARTS + b"]")
        assert caught.value.param == "body"
    assert len(load(b"[" + b"1," * MAX_PARTS + b"1]")) == MAX_PARTS + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_million_numbers_are_not_copied_to_look_for_half_a_character() -> None:
    code = r"""
from mixcli.errors import BadRequest
from mixcli.host.api.json_body import load
body = b'{"prompt": [' + b"1," * 1_500_000 + b'1], "user": "%s"}'
# limited
print(len(load(body % rb"\ud83d\ude00")["prompt"]))
try:
    load(body % rb"\ud83d")
except BadRequest as error:
    print(error.param)
"""
    assert runs(code, gib=0.15) == "1500001\nuser"


def test_thoughts_behind_a_call_are_joined_once() -> None:
    code = """
from mixcli.host.api.responses_items import CallItem, ReasoningItem, turns_of
call = CallItem(type="function_call", call_id="c", name="f", arguments="{}")
thought = ReasoningItem.model_validate({"type": "reasoning", "content": [{"type": "text", "text": "x" * 1000}]})
(turn,) = turns_of([call, *[thought] * 60_000, *[call] * 100_000])
print(len(turn.message["reasoning_content"]), len(turn.message["tool_calls"]), len(turn.items))
"""
    assert runs(code) == "60000000 100001 160001"
