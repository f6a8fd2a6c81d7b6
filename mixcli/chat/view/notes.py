"""The notes of a chat: which model answers and where it is, what was left out, why an answer ended early."""

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from mixcli.chat.view.stats import TurnStats
from mixcli.chat.view.toolbar import shares
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

if TYPE_CHECKING:
    from mixcli.host.protocol.host_spec import LoadPlan

MIN_ROOM = 20  # columns that the text of a row needs


def short(label: str) -> str:
    """Return a label as a line has room for it: of a file its name."""
    return label.rpartition("/")[2] if label.endswith(".gguf") else label


def row(head: str, text: str) -> str:
    """Return a row of a table; on a terminal, text that is too long continues below itself."""
    room = shutil.get_terminal_size().columns - len(head)
    if not console.is_terminal(sys.stderr) or room < MIN_ROOM:
        return head + text
    return head + f"\n{' ' * len(head)}".join(textwrap.wrap(text, room))


def welcome(label: str, profile: str) -> str:
    """Return which model answers, and how to find the commands."""
    parts = [
        short(label),
        *([f"profile {profile}"] if profile else []),
        "/help lists the commands",
        "Ctrl-D quits",
    ]
    return " · ".join(parts)


def placement(label: str, order: "LoadPlan", n_ctx: int) -> str:
    """Return which parts are on which device."""
    parts = (f"{format_bytes(sum(kinds.values()))} on {name}" for name, kinds in shares(order.expected))
    return " · ".join((short(label), *parts, f"context {n_ctx:,} tokens"))


def dropped(n_messages: int, n_ctx: int) -> str:
    """Return that old messages were left out."""
    return f"({n_messages} of the oldest messages dropped: the context{_of(n_ctx)} is full; they stay in the conversation)"


def truncated(stats: TurnStats, max_tokens: object, n_ctx: int) -> str:
    """Return why an answer ended early: at its maximum length, or at the end of the context."""
    if stats.n_generated == max_tokens:
        return f"(truncated: max_tokens {stats.n_generated:,} reached; change it with /set max_tokens)"
    if not n_ctx:
        return "(truncated: the server's token limit is reached; send a message to continue)"
    return (
        f"(truncated: the context of {n_ctx:,} tokens is full; "
        "start the chat with a larger --ctx, or /set overflow drop-oldest)"
    )


def _of(n_ctx: int) -> str:
    return f" of {n_ctx:,} tokens" if n_ctx else ""
