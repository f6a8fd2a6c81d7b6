"""How calls of tools and their results look: a call with every character visible, a result folded."""

import json
from typing import TYPE_CHECKING

from mixcli.system.formatting import counted

if TYPE_CHECKING:
    from mixcli.request.prompt import FunctionCall

SHOWN_ROWS, SHOWN_CHARACTERS = 3, 240  # of a result


def shown_call(call: "FunctionCall") -> str:
    """Return a call as a person reads it: its name and all of its arguments, each character visible."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return visible(f"{call.name} {call.arguments}")
    if not isinstance(arguments, dict):
        return visible(f"{call.name} {call.arguments}")
    each = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return visible(f"{call.name}({', '.join(each)})")


def visible(text: str) -> str:
    """Return a text whose characters that cannot be seen are written as escapes, so that a call is what it looks like."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def folded(text: str) -> str:
    """Return the first rows of a result, and how much more there is."""
    rows = text.strip().splitlines() or ["(empty)"]
    head = "\n".join(f"  {row}" for row in rows[:SHOWN_ROWS])
    cut = head[:SHOWN_CHARACTERS]
    if len(cut) < len(head):
        return f"{cut}… ({counted(len(text), 'character')})"
    return f"{head}\n  … ({counted(len(rows) - SHOWN_ROWS, 'more line')})" if len(rows) > SHOWN_ROWS else head


__all__ = ["folded", "shown_call", "visible"]
