"""Tools for formats that have no place for them: definitions in the system text, calls and results between tags, as Hermes models do."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mixcli.prompts.messages import Message, Tool, ToolCall
from mixcli.prompts.tool_json import arguments_of, dumped

BEGIN_CALL, END_CALL = "<tool_call>", "</tool_call>"
BEGIN_RESULT, END_RESULT = "<tool_response>", "</tool_response>"

_MANUAL = """\
You can call functions. Their signatures, as JSON Schema, are between <tools> and </tools>:
<tools>
{tools}
</tools>
To call a function, write a JSON object with its name and its arguments between <tool_call> and </tool_call>, once for each call:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>
Results come between <tool_response> and </tool_response>."""


def as_text(
    messages: Sequence[Message], tools: Sequence[Tool], *, results_from: str = "tool"
) -> list[Message]:
    """Return messages without tools in them: what is said with tools becomes text; the results speak as `results_from`."""
    written = list(_spelled(messages, results_from))
    if not tools:
        return written
    manual = _MANUAL.format(tools="\n".join(dumped(tool.definition) for tool in tools))
    if written and written[0].role == "system":
        system = f"{written[0].content}\n\n{manual}" if written[0].content else manual
        return [Message("system", system), *written[1:]]
    return [Message("system", manual), *written]


def _spelled(messages: Sequence[Message], results_from: str) -> Iterator[Message]:
    results: list[str] = []
    for i, message in enumerate(messages):
        if message.role == "tool":
            results.append(f"{BEGIN_RESULT}\n{message.content}\n{END_RESULT}")
            if i + 1 == len(messages) or messages[i + 1].role != "tool":
                yield Message(results_from, "\n".join(results))
                results = []
        elif message.calls:
            calls = "\n".join(_call(one) for one in message.calls)
            content = f"{message.content}\n{calls}" if message.content else calls
            yield replace(message, content=content, calls=(), tokens=())
        else:
            yield message


def _call(call: ToolCall) -> str:
    body = dumped({"name": call.name, "arguments": arguments_of(call.arguments)})
    return f"{BEGIN_CALL}\n{body}\n{END_CALL}"
