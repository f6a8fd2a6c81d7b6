"""Build the messages of a prompt and its text."""

from collections.abc import Mapping
from typing import NamedTuple

from mixcli.errors import UsageError
from mixcli.request.template import Template
from mixcli.system.console import console

NONE: Mapping[str, str] = {}
PIPED, TEXT, PROMPT = "stdin", "text", "prompt"  # the names that a template has for the text and for PROMPT


class FunctionCall(NamedTuple):
    """A call of a tool by the model; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str

    def to_json(self) -> dict[str, object]:
        """Return the call by OpenAI's names."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class ChatTurn(NamedTuple):
    """One message of a request; `token_ids` are what an earlier answer was sampled as.

    An assistant's turn may have `calls` of tools; a tool's turn is the result of the call `call_id`.
    """

    role: str
    content: str
    token_ids: tuple[int, ...] = ()
    calls: tuple[FunctionCall, ...] = ()
    call_id: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the message by OpenAI's names."""
        said: dict[str, object] = {"role": self.role, "content": self.content}
        if self.token_ids:
            said["token_ids"] = list(self.token_ids)
        if self.calls:
            said["tool_calls"] = [one.to_json() for one in self.calls]
        if self.call_id:
            said["tool_call_id"] = self.call_id
        return said


class PromptSpec(NamedTuple):
    """A prompt for a text: `template` has placeholders for it (`stdin` or `text`), for `prompt` and for `variables`."""

    template: Template
    prompt: str = ""
    system: str = ""
    variables: Mapping[str, str] = NONE

    def messages(self, text: str) -> tuple[ChatTurn, ...]:
        """Return the conversation that asks it of a text."""
        values = {**self.variables, PROMPT: self.prompt, PIPED: text, TEXT: text}
        return turns(self.system, self.template.fill(values))


def turns(system: str, question: str) -> tuple[ChatTurn, ...]:
    """Return the conversation of a system message, if any, and a question."""
    asked = ChatTurn("user", question)
    return (ChatTurn("system", system), asked) if system else (asked,)


def question_of(
    prompt: str | None,
    template: str | None,
    system: str | None,
    variables: Mapping[str, str],
    *,
    has_text: bool,
    many: bool = False,
) -> PromptSpec:
    """Put a question together: the text first, then the template, then the prompt, each where the template does not place it.

    With `many` texts the text comes last, so that all prompts begin alike. UsageError when there is nothing to ask.
    """
    if clash := {PIPED, TEXT, PROMPT} & set(variables):
        raise UsageError(
            f"-v {min(clash)}: this name is reserved for the text or the prompt; choose another one"
        )
    middle = Template.parse(template.strip("\n")) if template is not None else Template(("",), ())
    if template is not None:
        middle.check_used(variables, "the template")
        if one := middle.misspelled((PIPED, TEXT, PROMPT)):
            console.warn(
                f"the template has {one}, which is sent as it is; write a place as {{{{ {PROMPT} }}}}"
            )
    text_is_placed = PIPED in middle.names or TEXT in middle.names
    pieces = [] if template is None else [middle]
    if prompt and prompt.strip() and PROMPT not in middle.names:
        pieces.append(Template(("", ""), (PROMPT,)))
    if has_text and not text_is_placed:
        pieces.insert(len(pieces) if many else 0, Template(("", ""), (PIPED,)))
    if not pieces:
        raise UsageError(
            "no prompt and no piped text; pass a prompt (mixcli run 'Why is the sky blue?'), pipe in some text, or use `mixcli chat`"
        )
    return PromptSpec(_joined(pieces), prompt or "", system or "", dict(variables))


def _joined(pieces: list[Template]) -> Template:
    """Join templates with an empty line between them."""
    texts, names = list(pieces[0].texts), list(pieces[0].names)
    for piece in pieces[1:]:
        texts[-1] = f"{texts[-1].rstrip()}\n\n{piece.texts[0].lstrip()}"
        texts += piece.texts[1:]
        names += piece.names
    return Template(tuple(texts), tuple(names))
