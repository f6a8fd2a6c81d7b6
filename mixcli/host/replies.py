"""Answers that may not have arrived: kept for a while under the name that their asker gave them (Idempotency-Key).

A batch that is killed has requests in flight. Its next run asks them by the same names, and what was computed meanwhile is not computed again.
"""

from collections import OrderedDict
from typing import Any

MOST = 1024  # answers
LONGEST = 1 << 16  # characters of an answer's text
LONGEST_KEY = 200


class Replies:
    """The last answers that have a name; the oldest goes first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, key: str | None) -> dict[str, Any] | None:
        """Give the answer of that name."""
        return self._kept.get(key) if key else None

    def keep(self, key: str | None, answer: dict[str, Any]) -> None:
        """Keep an answer, unless it has no name or is very long."""
        if not key or len(key) > LONGEST_KEY:
            return
        if len(answer["choices"][0]["message"]["content"]) > LONGEST:
            return
        self._kept[key] = answer
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
