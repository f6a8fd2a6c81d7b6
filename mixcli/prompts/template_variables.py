"""The variables of a chat template: messages, tools and settings, with any texts in the place of what people wrote."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mixcli.prompts.messages import NO_OPTIONS, Message, PromptOptions
from mixcli.prompts.tool_json import arguments_of

Put = Callable[[str], str]


class TemplateVariables(dict[str, Any]):
    """The variables of one rendering."""

    @classmethod
    def of(
        cls,
        messages: Sequence[Message],
        texts: Sequence[str],
        *,
        prompt: bool,
        in_parts: bool = False,
        options: PromptOptions = NO_OPTIONS,
    ) -> "TemplateVariables":
        """Return them with these texts: a content for each message, then others in the order of `texts_of`, or none for the own ones.

        `prompt` asks for the beginning of an answer at the end.
        """
        others = iter(texts[len(messages) :])
        variables = _variables(messages, options, lambda text: next(others, text))
        for shown, content in zip(variables["messages"], texts, strict=False):
            shown["content"] = [{"type": "text", "text": content}] if in_parts else content
        return cls(**variables, add_generation_prompt=prompt)


def texts_of(messages: Sequence[Message], options: PromptOptions) -> list[str]:
    """Return all text that comes from the client: the contents of the messages, then calls, reasoning and definitions of tools."""
    others: list[str] = []

    def note(text: str) -> str:
        others.append(text)
        return text

    _variables(messages, options, note)
    return [*(message.content for message in messages), *others]


def _variables(messages: Sequence[Message], options: PromptOptions, put: Put) -> dict[str, Any]:
    variables: dict[str, Any] = {"messages": [dict(_message(one, put)) for one in messages]}
    if options.tools:
        variables["tools"] = [
            {"type": "function", "function": _mapped(tool.function, put, keep=1)} for tool in options.tools
        ]
    if options.reasoning_effort is not None:
        variables["reasoning_effort"] = options.reasoning_effort
    return variables


def _message(message: Message, put: Put) -> Iterator[tuple[str, Any]]:
    yield "role", message.role
    yield "content", ""
    if message.reasoning:
        yield "reasoning_content", put(message.reasoning)
    if message.calls:
        calls = []
        for call in message.calls:
            function = {"name": put(call.name), "arguments": _mapped(arguments_of(call.arguments), put)}
            calls.append({"id": put(call.id), "type": "function", "function": function})
        yield "tool_calls", calls
    if message.role == "tool":
        yield "tool_call_id", put(message.call_id)
        if message.name:
            yield "name", put(message.name)


def _mapped(value: Any, put: Put, *, keep: int = 0) -> Any:
    """Put each text of a JSON value in its place, keys included but those of the first `keep` levels."""
    if isinstance(value, str):
        return put(value)
    if isinstance(value, list):
        return [_mapped(one, put) for one in value]
    if isinstance(value, dict):
        return {(key if keep else put(key)): _mapped(one, put) for key, one in value.items()}
    return value
