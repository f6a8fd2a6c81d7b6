"""The grammar of an answer that may have reasoning and tool calls: content is free, the arguments of a call keep to its tool's schema."""

import json
from collections.abc import Iterator
from functools import lru_cache

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.json_schema import Unenforceable
from mixcli.errors import BadRequest
from mixcli.prompts.answer_syntax import ANALYSIS, CHANNEL_MARKS, AnswerSyntax
from mixcli.prompts.messages import Tool, ToolUse
from mixcli.prompts.tool_text import BEGIN_CALL, END_CALL

ANY_OBJECT = '{"type":"object"}'
_TEXT = r"(.|\n)"


@lru_cache(64)
def answer_grammar(
    syntax: AnswerSyntax,
    use: ToolUse,
    form: ConstraintSpec | None,
    *,
    free: frozenset[str] = frozenset(),
    in_reasoning: bool = False,
) -> ConstraintSpec | None:
    """Return the constraint of an answer, None where it is free; `form` is what its content must look like where it calls no tool.

    The schema of a tool is enforced whole where the tool is strict; of another tool as far as it can be, and that of a tool named in `free`
    is any object. Raises BadRequest for a schema that is invalid, or cannot be enforced and has to be.
    """
    if not use.tools and (form is None or syntax.reasoning is None):
        return form
    schemas = [ANY_OBJECT if tool.name in free else schema_of(use, tool).text for tool in use.callable]
    rules = list(_rules(syntax, use, has_form=form is not None, in_reasoning=in_reasoning))
    grammar = {
        "lark": "\n".join(rules) + "\n",
        "tools": [tool.name for tool in use.callable],
        "schemas": schemas,
        "form": [form.kind, form.text] if form else None,
    }
    return ConstraintSpec("answer", json.dumps(grammar), form.param if form and not schemas else "tools")


def schema_of(use: ToolUse, tool: Tool) -> ConstraintSpec:
    """Return what the arguments of a tool are held to: an object, without properties an empty one.

    Raises BadRequest, which names the tool, for an invalid schema, and for one that a strict tool wants enforced and that cannot be.
    """
    schema = json.loads(tool.parameters)
    if isinstance(schema, dict):
        schema = {"type": "object", "properties": {}, **schema}
    param = f"tools.{use.tools.index(tool)}.function.parameters"
    try:
        return ConstraintSpec.of("json_schema", schema, param=param, loose=not tool.strict)
    except Unenforceable as error:
        if tool.strict:
            raise named(error, tool) from None
        return ConstraintSpec("json_schema", ANY_OBJECT, param)
    except BadRequest as error:
        raise named(error, tool) from None


def named(error: BadRequest, tool: Tool) -> BadRequest:
    """Return an error about a schema with the name of its tool."""
    return BadRequest(f"tool {tool.name}: {error}", param=error.param, code=error.code)


def _rules(syntax: AnswerSyntax, use: ToolUse, *, has_form: bool, in_reasoning: bool) -> Iterator[str]:
    space = '" "? ' if syntax.is_spaced else ""
    think = ""
    if syntax.has_channels:
        channel, message, start, end = (_mark(syntax, one) for one in CHANNEL_MARKS)
        analysis = f'{channel} "{ANALYSIS}" {message} THOUGHT? {end} {start} "assistant"'
        think = f'({analysis})? {channel} "final" {message} '
        if in_reasoning:
            think = f'THOUGHT? {end} {start} "assistant" {channel} "final" {message} '
        yield f"THOUGHT: /{_TEXT}+/"
    elif syntax.reasoning is not None:
        opened, closed = (_mark(syntax, one) for one in syntax.reasoning)
        think = "thought " if in_reasoning else f"({opened} thought)? "
        if closed.startswith("<["):
            yield f"thought: THOUGHT? {closed}"
            yield f"THOUGHT: /{_TEXT}+/"
        else:
            yield f"thought[lazy]: /{_TEXT}*<\\/think>/"
    calls = _calls(syntax, use)
    tagged = syntax.style == "tags" and _mark(syntax, BEGIN_CALL).startswith('"')
    plain = "PLAIN?"
    yield (f"PLAIN: /{_TEXT}+/ & ~/(?s:.*)<tool_call>(?s:.*)/" if tagged else f"PLAIN: /{_TEXT}+/")
    content = f"{space}@form" if has_form else plain
    if not use.callable:
        yield f"start: {think}{content}"
        return
    begin = _mark(syntax, BEGIN_CALL if syntax.style == "tags" else "[TOOL_CALLS]")
    if use.choice == "required":
        yield f"start: {think}{space}{begin} calls"
    elif has_form:
        yield f"start: {think}({content} | {space}{begin} calls)"
    elif tagged:
        yield f"start: {think}({plain} | lead calls)"
        yield f"lead[lazy]: /{_TEXT}*<tool_call>/"
    else:
        yield f"start: {think}{plain} ({begin} calls)?"
    yield from calls


def _calls(syntax: AnswerSyntax, use: ToolUse) -> Iterator[str]:
    """Yield the rules of what stands after the mark that begins the first call."""
    tools = use.callable
    many = use.parallel
    if syntax.style == "tokens":
        call_id = f"{_mark(syntax, '[CALL_ID]')} ID " if syntax.has_ids else ""
        again = f" ({_mark(syntax, '[TOOL_CALLS]')} call)*" if many else ""
        yield f"calls: call{again}"
        for i, tool in enumerate(tools):
            yield f"call{i}: {_quoted(tool.name)} {call_id}{_mark(syntax, '[ARGS]')} @tool{i}"
    else:
        for i, tool in enumerate(tools):
            head = _quoted(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
            call_id = ' (", \\"id\\": \\"" ID "\\"")?' if syntax.style == "list" else ""
            yield f'call{i}: {head} @tool{i}{call_id} "}}"'
        if syntax.style == "list":
            again = ' ("," " "? call)*' if many else ""
            yield f'calls: " "? "[" call{again} "]"'
        else:
            one = f'"\\n"? call "\\n"? {_mark(syntax, END_CALL)}'
            again = f' ("\\n"? {_mark(syntax, BEGIN_CALL)} {one})*' if many else ""
            yield f"calls: {one}{again}"
    yield "call: " + " | ".join(f"call{i}" for i in range(len(tools)))
    yield "ID: /[a-zA-Z0-9]{9}/"


def _mark(syntax: AnswerSyntax, text: str) -> str:
    """Return a mark as Lark writes it: a token by its number, or a text."""
    token = next((token for token, mark in syntax.marks if mark == text), None)
    return _quoted(text) if token is None else f"<[{token}]>"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
