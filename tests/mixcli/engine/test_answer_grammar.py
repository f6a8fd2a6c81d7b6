"""Which answers with reasoning and calls a constraint lets through, in each style; and what a model writes under it."""

import json
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from mixcli.engine.answer_grammar import answer_grammar
from mixcli.engine.constraint import Grammars
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import AnswerShape, Output, Request
from mixcli.errors import BadRequest
from mixcli.llama.model import Model
from mixcli.prompts.answer_parser import joined
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message, PromptOptions, Tool, ToolUse
from tests.support.models import VERSIONS

CITY = '{"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}, "required": ["city"]}'
TOOLS = (Tool("get_weather", "The weather.", CITY), Tool("stop"))
INTEGER = ConstraintSpec.of("json_schema", {"type": "integer"})
AUTO, REQUIRED, NONE = ToolUse(TOOLS), ToolUse(TOOLS, "required"), ToolUse(TOOLS, "none")
STOP = ToolUse(TOOLS, "required", ("stop",), parallel=False)
STYLES = ("chatml", "v1", "v3", "v7", "v11", "v13", "v15")
Reader = Callable[..., str]


def call(style: str, name: str, arguments: str) -> list[str]:
    """One answer with a call, in marks and texts."""
    if style in ("chatml", "v1"):
        return [f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>']
    if style in ("v3", "v7"):
        return ["[TOOL_CALLS]", f'[{{"name": "{name}", "arguments": {arguments}}}]']
    call_id = ["[CALL_ID]", "abcdefgh1"] if style == "v11" else []
    return ["[TOOL_CALLS]", name, *call_id, "[ARGS]", arguments]


@pytest.fixture(scope="module")
def read(smol: Model, vocab_model: Callable[..., Model]) -> Reader:
    """Return how a constraint takes an answer: "ends" where it may end there, "goes on", or "refused"."""

    @cache
    def loaded(style: str) -> tuple[Model, ChatFormat, Grammars]:
        model = smol if style == "chatml" else vocab_model(style)
        return model, ChatFormat.of(model), Grammars(model.vocab)

    def how(style: str, use: ToolUse, answer: Sequence[str], form: ConstraintSpec | None = None) -> str:
        model, chat, grammars = loaded(style)
        spec = answer_grammar(chat.syntax, use, form)
        assert spec is not None
        constraint = grammars.compile(spec)
        for part in answer:
            special = model.vocab.specials.get(part)
            for token in chat.tokenizer.encode(part) if special is None else [special]:
                logits = np.zeros(model.vocab.n_tokens, np.float32)
                constraint.mask(logits)
                if logits[token] < 0:
                    return "refused"
                constraint.accept(token)
        return "ends" if constraint.may_end else "goes on"

    return how


@pytest.mark.parametrize("style", STYLES)
def test_calls_keep_to_their_tools(read: Reader, style: str) -> None:
    for use in (AUTO, REQUIRED):
        assert read(style, use, call(style, "get_weather", '{"city": "Köln", "n": 2}')) == "ends"
        assert read(style, use, call(style, "stop", "{}")) == "ends"
        assert read(style, use, call(style, "get_weather", '{"city": "K')) != "ends"
        for name, arguments in (
            ("get_weather", "{}"),
            ("get_weather", '{"city": 1}'),
            ("stop", '{"a": 1}'),
            ("other", "{}"),
        ):
            assert read(style, use, call(style, name, arguments)) == "refused"
    assert read(style, STOP, call(style, "stop", "{}")) == "ends"
    assert read(style, STOP, call(style, "get_weather", '{"city": "K"}')) == "refused"


@pytest.mark.parametrize("style", STYLES)
def test_a_choice_of_tools_decides_whether_text_may_come(read: Reader, style: str) -> None:
    assert read(style, AUTO, ["Hello [x] <y>\n"]) == "ends"
    assert read(style, AUTO, ["Well. ", *call(style, "stop", "{}")]) == "ends"
    assert read(style, REQUIRED, ["Hello"]) == "refused"
    assert read(style, NONE, ["Hello [x] <y>\n"]) == "ends"
    assert read(style, NONE, call(style, "stop", "{}")) == "refused"


@pytest.mark.parametrize("style", STYLES)
def test_several_calls_only_where_they_may_be_parallel(read: Reader, style: str) -> None:
    one = call(style, "stop", "{}")
    two = ["\n".join([*one, *one])] if style in ("chatml", "v1") else [*one, *one]
    if style in ("v3", "v7"):
        two = [one[0], f"{one[1][:-1]}, {one[1][1:]}"]
    assert read(style, AUTO, two) == "ends"
    assert read(style, ToolUse(TOOLS, parallel=False), two) == "refused"


@pytest.mark.parametrize("style", STYLES)
def test_a_form_is_for_answers_without_calls(read: Reader, style: str) -> None:
    assert read(style, AUTO, ["12"], INTEGER) == "ends"
    assert read(style, AUTO, call(style, "stop", "{}"), INTEGER) == "ends"
    assert read(style, AUTO, ["Hello"], INTEGER) == "refused"


@pytest.mark.parametrize("style", ["v13", "v15"])
def test_reasoning_precedes_what_is_constrained(read: Reader, style: str) -> None:
    thought = ["[THINK]", "So: {} [TOOL_CALLS]\n", "[/THINK]"]
    assert read(style, ToolUse(), [*thought, "12"], INTEGER) == "ends"
    assert read(style, ToolUse(), [*thought, "x"], INTEGER) == "refused"
    assert read(style, ToolUse(), ["12"], INTEGER) == "ends"
    assert read(style, REQUIRED, [*thought, *call(style, "stop", "{}")]) == "ends"
    assert read(style, NONE, [*thought, "Hello"]) == "ends"
    assert read(style, NONE, [*thought, *thought]) == "refused"


def test_what_cannot_be_enforced_is_refused_for_strict_tools_only(smol: Model) -> None:
    schema = '{"type": "object", "properties": {"a": {"not": {"type": "string"}}}}'
    chat = ChatFormat.of(smol)
    with pytest.raises(BadRequest, match=r"^tool f: .* properties\.a\.not cannot be enforced") as caught:
        answer_grammar(chat.syntax, ToolUse((Tool("f", "", schema, strict=True),)), None)
    assert caught.value.param == "tools.0.function.parameters"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"a": {"type": "string", "not": {"const": "x"}}}, '{"a": "x"}', '{"a": 1}'),
        ({"a": {"type": "integer", "maximum": 5, "multipleOf": 1 << 60}}, '{"a": 5}', '{"a": 6}'),
        ({"a": {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2]}}}, '{"a": [1, 1]}', '{"a": [3]}'),
        ({"a": {"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}}, '{"a": 2}', '{"a": 4}'),
        ({"a": {"type": "string", "format": "phone", "maxLength": 2}}, '{"a": "12"}', '{"a": "123"}'),
        ({"a": {"type": "string", "pattern": "^(?!x)"}}, '{"a": "x"}', '{"a": 1}'),
        ({"a": {"$ref": "https://example.org/schema"}, "b": {"type": "null"}}, '{"a": 1, "b": null}', '{"b": 1}'),
    ],
)  # fmt: skip
def test_of_other_tools_all_is_enforced_that_can_be(
    read: Reader, schema: dict[str, object], good: str, bad: str
) -> None:
    """Only the keyword that cannot be enforced is left to the model, oneOf is read as anyOf."""
    use = ToolUse((Tool("f", "", json.dumps({"properties": schema})),), "required")
    assert read("chatml", use, call("chatml", "f", good)) == "ends"
    assert read("chatml", use, call("chatml", "f", bad)) == "refused"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": []}, "properties must be an object"),
        ({"properties": {"a": {"type": "text"}}}, "properties.a.type cannot be used"),
        ({"required": "a"}, "required must be a list of names"),
    ],
)
def test_an_invalid_schema_is_refused_with_the_name_of_its_tool(
    smol: Model, schema: object, said: str
) -> None:
    tools = (Tool("f"), Tool("g", "", json.dumps(schema)))
    with pytest.raises(BadRequest, match=f"^tool g: the JSON schema's {said}") as caught:
        answer_grammar(ChatFormat.of(smol).syntax, ToolUse(tools, "required", ("g",)), None)
    assert caught.value.param == "tools.1.function.parameters"


def test_an_answer_that_is_free_has_no_constraint(smol: Model) -> None:
    syntax = ChatFormat.of(smol).syntax
    assert answer_grammar(syntax, ToolUse(), None) is None
    assert answer_grammar(syntax, ToolUse(), INTEGER) is INTEGER
    assert {*STYLES} - {"chatml"} <= {*VERSIONS}


def asked(engine: Engine, smol: Model, use: ToolUse, **sampling: object) -> list[Output]:
    chat = ChatFormat.of(smol)
    prompt = chat.encode([Message("user", "What is the weather in Paris?")], PromptOptions(use.tools))
    shape = AnswerShape(chat.syntax, bool(use.callable))
    engine.add(
        Request(
            "asked",
            tuple(prompt),
            SamplingParams(**{"temperature": 0, "max_tokens": 60, **sampling}),  # type: ignore[arg-type]
            constraint=answer_grammar(chat.syntax, use, None),
            shape=shape,
        )
    )
    outputs: list[Output] = []
    while engine.has_work:
        outputs += engine.step()
    return outputs


@pytest.mark.slow
@pytest.mark.model
def test_a_model_that_must_call_calls(make_engine: Callable[..., Engine], smol: Model) -> None:
    outputs = asked(make_engine(), smol, ToolUse(TOOLS, "required", ("get_weather",), parallel=False))
    segments = joined([one for output in outputs for one in output.segments])
    assert [(one.kind, one.index) for one in segments] == [("call", 0), ("arguments", 0)]
    assert segments[0].text == "get_weather" and "city" in json.loads(segments[1].text)
    assert outputs[-1].finish_reason == "stop" and "".join(one.text for one in outputs) == ""
    assert sum(bool(output.segments) for output in outputs) > 2  # they come while they are written


@pytest.mark.slow
@pytest.mark.model
def test_stop_texts_are_looked_for_in_content_only(make_engine: Callable[..., Engine], smol: Model) -> None:
    engine = make_engine()
    outputs = asked(
        engine, smol, ToolUse(TOOLS, "required", ("get_weather",), parallel=False), stop=("city", '"')
    )
    assert json.loads("".join(s.text for o in outputs for s in o.segments if s.kind == "arguments"))
    free = "".join(one.text for one in asked(engine, smol, NONE))
    word = free.split()[2]
    stopped = "".join(one.text for one in asked(engine, smol, NONE, stop=(word,)))
    assert stopped == free[: free.index(word)]
