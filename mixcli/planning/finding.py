"""What one check of `mixcli doctor` found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check: its name, its state (ok, warn, fail), and details with the next step."""

    what: str
    state: Literal["ok", "warn", "fail"]
    words: str
