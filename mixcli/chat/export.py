"""Export a conversation as markdown or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from mixcli.chat.sessions import CUT, FAILED, STOPPED, Session, StoredMessage
from mixcli.chat.view.calls import shown_call
from mixcli.system.formatting import moment

FORMATS = {"markdown": ".md", "json": ".json"}
SAYS = {"user": "You", "assistant": "Model", "tool": "Tool"}
ENDED = {STOPPED: "stopped", CUT: "cut off", FAILED: "no answer"}


def as_markdown(session: Session, messages: Sequence[StoredMessage]) -> str:
    """Write a branch as markdown: a heading a turn, the text as it came."""
    parts = [f"# {session.name}", f"{session.model}, {moment(session.created)[:10]}"]
    if session.system:
        parts += ["## System", session.system]
    for message in messages:
        note = f" ({ENDED[message.state]})" if message.state in ENDED else ""
        parts += [f"## {SAYS.get(message.role, message.role)}{note}", message.content.strip()]
        if message.role == "assistant":
            parts += [f"Calls `{shown_call(call)}`" for call in message.calls]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_data(session: Session, messages: Sequence[StoredMessage]) -> dict[str, object]:
    """Return a branch for programs; `messages` have OpenAI's role and content, and what else is known of each."""
    about = asdict(session)
    about.pop("head")
    return {**about, "messages": [_message(one) for one in messages]}


def _message(message: StoredMessage) -> dict[str, object]:
    found = {key: value for key, value in asdict(message).items() if key not in ("id", "parent", "calls")}
    if message.role == "tool" and message.calls:  # a damaged one has none
        return {**found, "tool_call_id": message.calls[0].id, "name": message.calls[0].name}
    return {**found, "tool_calls": [one.to_json() for one in message.calls]} if message.calls else found


def text_of(session: Session, messages: Sequence[StoredMessage], form: str) -> str:
    """Write a branch in one of FORMATS."""
    if form == "json":
        return json.dumps(as_data(session, messages), ensure_ascii=False, indent=2) + "\n"
    return as_markdown(session, messages)
