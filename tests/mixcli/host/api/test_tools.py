"""Tools and reasoning over HTTP, in this process: tiny models of random weights with Mistral's vocabularies, which the grammar makes call."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mixcli.engine.constraint import Grammars
from mixcli.engine.constraint_spec import ConstraintSpec
from tests.support.app import App, instruct_app

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY},
}
STOP = {"type": "function", "function": {"name": "stop"}}
TOOLS = [WEATHER, STOP]
UNKNOWN = {"type": "function", "function": {"name": "unknown"}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ASK = {"role": "user", "content": "Weather in Ulm?"}
VERSIONS = ("v1", "v3", "v7", "v11", "v13", "v15")
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Ulm", "unit": "C"}'},
}
CALLED = [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}]  # fmt: skip


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, App]]:
    folder = tmp_path_factory.mktemp("tools")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("MIXCLI_HOME", str(folder / "home"))
        patch.setenv("MIXCLI_KV_DISK", "0")
        yield {version: stack.enter_context(instruct_app(folder, version)) for version in VERSIONS}


def asked(app: App, **fields: object) -> dict[str, object]:
    """A question with tools; random weights must not reason on and on."""
    think = app.state.engine._loaded.model.vocab.specials.get("[THINK]")
    plain = {"messages": [ASK], "tools": TOOLS, "max_tokens": 120, "seed": 1, "temperature": 1}
    return {**plain, **({"logit_bias": {str(think): -100}} if think else {}), **fields}


def choice_of(app: App, **fields: object) -> dict[str, Any]:
    response = app.chat(**asked(app, **fields))
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    found: dict[str, Any] = choice
    return found


def streamed(app: App, **fields: object) -> list[dict[str, Any]]:
    return [choice for event in app.stream(**asked(app, **fields)) for choice in event["choices"]]


def error_of(app: App, **fields: object) -> dict[str, Any]:
    response = app.chat(**{"messages": [ASK], **fields})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tool_that_is_named_is_called(apps: dict[str, App], version: str) -> None:
    choice = choice_of(apps[version], tool_choice=NAMED, parallel_tool_calls=False)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert len(call["id"]) == 9 and call["id"].isalnum()
    arguments = json.loads(call["function"]["arguments"])
    assert arguments.keys() == {"city", "unit"} and arguments["unit"] in "CF"


@pytest.mark.parametrize("version", VERSIONS)
def test_some_tool_is_called_where_one_is_required(apps: dict[str, App], version: str) -> None:
    for seed in range(3):
        choice = choice_of(apps[version], tool_choice="required", seed=seed, max_tokens=300)
        calls = choice["message"]["tool_calls"]
        assert {one["function"]["name"] for one in calls} <= {"get_weather", "stop"}
        assert len({one["id"] for one in calls}) == len(calls)


@pytest.mark.parametrize("version", VERSIONS)
def test_none_calls_none(apps: dict[str, App], version: str) -> None:
    message = choice_of(apps[version], tool_choice="none")["message"]
    assert "tool_calls" not in message and isinstance(message["content"], str)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stream_brings_a_call_as_openai_does(apps: dict[str, App], version: str) -> None:
    fields = {"tool_choice": NAMED, "parallel_tool_calls": False}
    choice_of(apps[version], **fields)  # now the prompt is in the cache, for both
    whole = choice_of(apps[version], **fields)["message"]["tool_calls"][0]
    first, *middle, last = streamed(apps[version], **fields)
    assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")
    begun, *pieces = [one["delta"] for one in middle]
    (opened,) = begun["tool_calls"]
    assert opened.keys() == {"index", "id", "type", "function"}
    assert opened["function"] == {"name": "get_weather", "arguments": ""}
    assert all(one.keys() == {"tool_calls"} for one in pieces) and len(pieces) > 1
    assert all(call.keys() == {"index", "function"} for one in pieces for call in one["tool_calls"])
    arguments = "".join(call["function"]["arguments"] for one in pieces for call in one["tool_calls"])
    assert arguments == whole["function"]["arguments"]
    assert all(one["finish_reason"] is None for one in middle)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_model_decides_by_its_own_first_tokens(apps: dict[str, App], version: str) -> None:
    """A bias on the mark that begins a call is all that makes it call; the rest keeps to the schema."""
    if version == "v1":
        pytest.skip("it has no such token")
    mark = apps[version].state.engine._loaded.model.vocab.specials["[TOOL_CALLS]"]
    fields = {"tools": [WEATHER], "parallel_tool_calls": False}
    free = choice_of(apps[version], logit_bias={str(mark): -100}, max_tokens=8, **fields)
    assert "tool_calls" not in free["message"]
    called = choice_of(apps[version], logit_bias={str(mark): 100}, **fields)
    assert json.loads(called["message"]["tool_calls"][0]["function"]["arguments"]).keys() == {"city", "unit"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_conversation_goes_on_behind_a_result(apps: dict[str, App], version: str) -> None:
    message = choice_of(apps[version], messages=CALLED, tool_choice="none", max_tokens=8)["message"]
    assert message["content"]
    again = choice_of(apps[version], messages=[*CALLED, {**message, "refusal": None}, ASK], tool_choice=NAMED)
    answered = [
        {"role": "tool", "tool_call_id": one["id"], "content": "1"} for one in again["message"]["tool_calls"]
    ]
    turn = [*CALLED, message, ASK, again["message"], *answered]
    assert choice_of(apps[version], messages=turn, tool_choice="none", max_tokens=4)["message"]["content"]


def test_a_call_that_is_cut_off_ends_with_length(apps: dict[str, App]) -> None:
    choice = choice_of(apps["v13"], tool_choice=NAMED, max_tokens=9)
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


def test_a_schema_and_tools_go_together(apps: dict[str, App]) -> None:
    form = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "integer", "maximum": 99, "minimum": 0}},
    }
    mark = apps["v13"].state.engine._loaded.model.vocab.specials["[TOOL_CALLS]"]
    choice = choice_of(apps["v13"], response_format=form, logit_bias={str(mark): -100})
    assert 0 <= int(choice["message"]["content"]) <= 99


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
        ({"tools": [STOP, STOP]}, "tools.1.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"properties": {"a": {"not": {}}}}}}]}, "tools.0.function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]}, "tools.0.function.parameters"),
        ({"tools": [STOP, {"type": "function", "function": {"name": "f", "parameters": {"type": ["object", "null"]}}}]}, "tools.1.function.parameters"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.custom"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED, UNKNOWN]}}}, "tool_choice.allowed_tools.tools.1.function.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {**NAMED, "type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "n" * 129}}]}, "tools.0.function.name"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"think": True}, "think"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"messages": CALLED[:2], "tools": TOOLS}, "messages"),
        ({"messages": [ASK, CALLED[2]], "tools": TOOLS}, "messages.1.tool_call_id"),
        ({"messages": [ASK, {**CALLED[1], "tool_calls": [CALL, CALL]}, CALLED[2], CALLED[2]], "tools": TOOLS}, "messages.1.tool_calls"),
        ({"messages": [ASK, {"role": "tool", "content": "x"}]}, "messages.1"),
        ({"messages": [{**ASK, "tool_calls": [CALL]}]}, "messages.0"),
        ({"tools": TOOLS, "structured_outputs": {"choice": ["a", "b"]}}, "structured_outputs.choice"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(
    apps: dict[str, App], fields: dict[str, Any], param: str
) -> None:
    error = error_of(apps["v3"], **fields)
    assert error["param"] == param
    assert "Value error" not in error["message"]


@pytest.mark.parametrize("version", VERSIONS)
def test_of_the_allowed_tools_one_is_called_and_all_are_shown(apps: dict[str, App], version: str) -> None:
    long = "mcp__" + "n" * 123  # as agents name tools of MCP servers; OpenAI's and Anthropic's limit is 128
    tools = [*TOOLS, {"type": "function", "function": {"name": long}}]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": long}}]}
    fields = {"tools": tools, "max_tokens": 300}
    choice = choice_of(
        apps[version], **fields, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}
    )
    assert {call["function"]["name"] for call in choice["message"]["tool_calls"]} == {long}
    usages = [
        apps[version].chat(**asked(apps[version], tools=tools, tool_choice=one, max_tokens=1)).json()["usage"]
        for one in ({"type": "allowed_tools", "allowed_tools": allowed}, "required")
    ]
    assert usages[0]["prompt_tokens"] == usages[1]["prompt_tokens"]


def test_allowed_tools_of_responses_are_those_of_chat(apps: dict[str, App]) -> None:
    flat = [{"type": "function", **one["function"]} for one in TOOLS]
    body = {"input": ASK["content"], "tools": flat, "max_output_tokens": 300, "temperature": 0}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "stop"}]}
    answer = apps["v3"].post("/v1/responses", {**body, "tool_choice": allowed}).json()
    assert {item["name"] for item in answer["output"] if item["type"] == "function_call"} == {"stop"}
    unknown = {**allowed, "tools": [{"type": "function", "name": "x"}]}
    error = apps["v3"].post("/v1/responses", {**body, "tool_choice": unknown}).json()["error"]
    assert error["param"] == "tool_choice.tools.0.name"


def test_thinking_is_switched_off_or_refused_by_the_name_that_was_sent(apps: dict[str, App]) -> None:
    for fields, param in (
        ({"enable_thinking": False}, "enable_thinking"),
        ({"think": False}, "think"),
        ({"thinking": {"type": "disabled"}}, "thinking"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "enable_thinking"),
    ):
        error = error_of(apps["v13"], tools=[], **fields)  # which always thinks
        assert error["param"] == param and "always thinks" in error["message"]
        assert choice_of(apps["v3"], tools=[], **fields, max_tokens=2)  # which never does
        assert choice_of(apps["v15"], tools=[], **fields, max_tokens=2)  # which has a switch
    both = {"reasoning_effort": "high", "enable_thinking": False}
    assert error_of(apps["v15"], tools=[], **both)["param"] == "reasoning_effort"


def test_reasoning_is_apart_from_the_content(apps: dict[str, App]) -> None:
    specials = apps["v13"].state.engine._loaded.model.vocab.specials
    opens = {str(specials["[THINK]"]): 100, str(specials["[/THINK]"]): -100}
    form = {"type": "json_object"}
    fields = {"tools": [], "logit_bias": opens, "max_tokens": 12, "response_format": form}
    choice = choice_of(apps["v13"], **fields)
    reasoning = choice["message"]["reasoning_content"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length") and reasoning
    events = streamed(apps["v13"], **fields)
    assert "".join(one["delta"].get("reasoning_content", "") for one in events) == reasoning
    closes = {str(specials["[THINK]"]): 100, str(specials["[/THINK]"]): 90}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, 2]}}}
    behind = choice_of(apps["v13"], **{**fields, "logit_bias": closes, "response_format": form})
    assert behind["message"]["content"] in ("1", "2")


def test_reasoning_ends_at_its_budget(apps: dict[str, App]) -> None:
    specials = apps["v13"].state.engine._loaded.model.vocab.specials
    endless = {str(specials["[THINK]"]): 100, str(specials["[/THINK]"]): -100}
    fields = {
        "tools": [],
        "logit_bias": endless,
        "max_tokens": 30,
        "response_format": {"type": "json_object"},
    }
    for name, budget, n_reasoning in (("thinking_token_budget", 5, 7), ("thinking_budget_tokens", 0, 2), ("reasoning_budget_tokens", -1, 30)):  # fmt: skip
        response = apps["v13"].chat(**asked(apps["v13"], **{**fields, name: budget}))
        usage = response.json()["usage"]
        assert usage["completion_tokens_details"]["reasoning_tokens"] == n_reasoning
        assert bool(response.json()["choices"][0]["message"]["content"]) == (budget >= 0)
    assert error_of(apps["v13"], thinking_token_budget=-2)["param"] == "thinking_token_budget"
    body = {"messages": [ASK], "max_tokens": 30, "thinking": {"type": "enabled", "budget_tokens": 3}}
    answer = apps["v13"].post("/v1/messages", body)
    assert answer.status_code == 200, answer.text


def test_reasoning_goes_back_into_the_prompt_where_the_format_has_a_place(apps: dict[str, App]) -> None:
    turns = [ASK, {"role": "assistant", "content": "So.", "reasoning_content": "Hm."}, ASK]
    for version, has_place in (("v13", True), ("v15", True), ("v3", False)):
        response = apps[version].post("/apply-template", {"messages": turns})
        assert ("[THINK]Hm.[/THINK]" in response.json()["prompt"]) == has_place
    same = [turns[0], {"role": "assistant", "content": "So.", "reasoning": "Hm."}, ASK]
    assert (
        apps["v13"].post("/tokenize", {"messages": same}).json()
        == apps["v13"].post("/tokenize", {"messages": turns}).json()
    )


@pytest.mark.parametrize(("version", "kind", "said"), [("v3", "enabled", "does not think"), ("v13", "disabled", "always thinks")])  # fmt: skip
def test_thinking_that_a_model_cannot_do_is_refused_in_anthropics_form(
    apps: dict[str, App], version: str, kind: str, said: str
) -> None:
    body = {"messages": [ASK], "thinking": {"type": kind, "budget_tokens": 1024}}
    for path, limit in (("/v1/messages", {"max_tokens": 2}), ("/v1/messages/count_tokens", {})):
        response = apps[version].post(path, {**body, **limit})
        assert response.status_code == 400 and response.json()["error"]["type"] == "invalid_request_error"
        assert said in response.json()["error"]["message"]


def test_an_invalid_schema_is_named_in_the_words_of_each_api(apps: dict[str, App]) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/Missing"}}}
    error = error_of(apps["v3"], tools=[STOP, {"function": {"name": "f", "parameters": schema}}])
    assert error["param"] == "tools.1.function.parameters"
    assert error["message"].startswith("tool f: ") and "/$defs/Missing" in error["message"]
    flat = {"name": "f", "parameters": {"type": "object", "required": "a"}, "type": "function"}
    responses = apps["v3"].post("/v1/responses", {"input": "Hi", "tools": [flat]})
    assert responses.json()["error"]["param"] == "tools.0.parameters"
    theirs = {"name": "f", "input_schema": {"type": "object", "required": "a"}}
    messages = apps["v3"].post("/v1/messages", {"messages": [ASK], "max_tokens": 2, "tools": [theirs]})
    assert messages.json()["error"]["message"].startswith("tool f: the JSON schema's required must be")


def test_a_schema_that_contains_itself_is_followed_or_refused_with_its_tool(apps: dict[str, App]) -> None:
    tree = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object", "required": ["v"], "properties": {"v": {"enum": [1, 2]}, "left": {"$ref": "#/$defs/T", "type": "object"}}}}}  # fmt: skip
    one = {"type": "function", "function": {"name": "grow", "strict": True, "parameters": tree}}
    chosen = {"type": "function", "function": {"name": "grow"}}
    (call,) = choice_of(apps["v3"], tools=[one], tool_choice=chosen)["message"]["tool_calls"]
    assert call["function"]["arguments"].startswith(('{"v":1', '{"v":2', '{"v": 1', '{"v": 2'))
    endless = {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}
    joined = {"type": "object", "properties": {"a": {"$ref": "#", "required": ["b"]}}}
    for schema, strict, said in ((endless, False, "requires itself"), (endless, True, "requires itself"), (joined, True, "must stand alone")):  # fmt: skip
        bad = {"type": "function", "function": {"name": "bad", "strict": strict, "parameters": schema}}
        error = error_of(apps["v3"], tools=[STOP, bad])
        assert error["param"] == "tools.1.function.parameters"
        assert error["message"].startswith("tool bad: ") and said in error["message"]


def test_a_required_argument_without_a_schema_may_be_anything(apps: dict[str, App]) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a", "b"]}
    for strict in (False, True):
        one = {"type": "function", "function": {"name": "f", "strict": strict, "parameters": schema}}
        choice = choice_of(apps["v3"], tools=[one], tool_choice="required", max_tokens=30)
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"


def too_complex(name: str) -> dict[str, Any]:
    """A function whose arguments are too complex in their middle."""
    schema: dict[str, Any] = {"type": "object", "properties": {"v": {"type": "integer"}}}
    for i in range(6):
        schema = {"allOf": [{"anyOf": [schema, {"properties": {f"o{i}": {}}}]}, {"anyOf": [{"properties": {f"{c}{i}": {}}} for c in "pq"]}]}  # fmt: skip
    return {"name": name, "parameters": {"type": "object", **schema}}


def test_arguments_that_would_be_too_complex_in_the_middle_are_noticed_before(apps: dict[str, App]) -> None:
    fields = too_complex("fork")
    free = {"type": "function", "function": fields}
    assert choice_of(apps["v3"], tools=[free, STOP], tool_choice="required")["message"]["tool_calls"]
    strict = {"type": "function", "function": {**fields, "strict": True}}
    error = error_of(apps["v3"], tools=[strict], tool_choice="required")
    assert error["message"].startswith("tool fork: ") and "too complex" in error["message"]


def test_what_is_too_complex_is_found_once_for_all_answers(
    apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_ = Grammars._compile

    def counted(self: Grammars, spec: ConstraintSpec, spaced: bool) -> Any:
        compiled.append(spec.kind)
        return compile_(self, spec, spaced)

    monkeypatch.setattr(Grammars, "_compile", counted)
    tools = [{"type": "function", "function": too_complex("knife")}, STOP]
    response = apps["v3"].chat(**asked(apps["v3"], tools=tools, tool_choice="required", n=5))
    assert response.status_code == 200, response.text
    assert compiled.count("json_schema") <= len(tools)
    assert compiled.count("answer") == 2, "as it was asked for, and without what is too complex"


def test_anthropics_default_effort_asks_nothing_of_a_model_without_efforts(apps: dict[str, App]) -> None:
    for effort, status in (("high", 200), ("low", 400)):
        body = {"messages": [ASK], "max_tokens": 2, "output_config": {"effort": effort}}
        assert apps["v3"].post("/v1/messages", body).status_code == status


def test_effort_reaches_the_format_that_has_it(apps: dict[str, App]) -> None:
    assert choice_of(apps["v15"], tools=[], reasoning_effort="high", max_tokens=2)
    error = error_of(apps["v15"], reasoning_effort="medium")
    assert error["param"] == "reasoning_effort" and "none, high" in error["message"]
    assert choice_of(apps["v3"], tools=[], reasoning_effort="none", max_tokens=2)
    offered = {
        version: apps[version].send("GET", "/v1/models").json()["data"][0]["reasoning_efforts"]
        for version in ("v3", "v15")
    }
    assert offered == {"v3": [], "v15": ["none", "high"]}
