"""The status line of the chat: model, context use, speed; and the placement during a load."""

from collections.abc import Mapping
from dataclasses import dataclass

from mixcli.chat.model_loader import LOADING, LoadState
from mixcli.system.formatting import format_bytes

NEARLY_FULL = 0.8  # of the context
BAR = 24  # characters
FULL, EMPTY = "█", "░"


@dataclass(frozen=True)
class Gauges:
    """What the line shows; counts are tokens, `decode_rate` tokens per second, `keep_alive` seconds.

    A model of another server has no profile and no keep-alive.
    """

    model: str
    profile: str
    n_used: int
    n_ctx: int
    decode_rate: float
    keep_alive: float | None
    n_files: int = 0
    session: str = ""
    in_memory: bool = False
    drops: bool = True

    @property
    def share(self) -> float:
        return min(1.0, self.n_used / self.n_ctx) if self.n_ctx else 0.0

    @property
    def nearly_full(self) -> bool:
        return self.share >= NEARLY_FULL


def line(gauges: Gauges) -> str:
    """Return the line of a loaded model."""
    parts = [gauges.model]
    if gauges.n_ctx:
        parts.append(f"context {100 * gauges.share:.0f} %{_warning(gauges)}")
    if gauges.in_memory:
        parts.append("not saved")
    if gauges.profile:
        parts.append(f"profile {gauges.profile}")
    if gauges.decode_rate:
        parts.append(f"{gauges.decode_rate:.1f} tok/s")
    if gauges.keep_alive is not None:
        parts.append(stays(gauges.keep_alive))
    if gauges.n_files:
        parts.append(f"{gauges.n_files} file{'s' if gauges.n_files > 1 else ''} attached")
    if gauges.session and not gauges.in_memory:
        parts.append(gauges.session)
    return " · ".join(parts)


def stays(keep_alive: float) -> str:
    """Return how long the model stays in memory after the chat."""
    if keep_alive < 0:
        return "keep-alive: no limit"
    for unit, n_seconds in (("h", 3600), ("m", 60)):
        if keep_alive >= n_seconds:
            return f"keep-alive {keep_alive / n_seconds:g}{unit}"
    return f"keep-alive {keep_alive:g}s" if keep_alive else "keep-alive 0"


def loading(state: LoadState) -> list[str]:
    """Return the lines of a model that is being loaded: how far it is, and the memory that it takes of every device."""
    if state.status != LOADING:
        return []
    lines = [f"loading {state.label} {bar(state.share)} {100 * state.share:.0f} %"]
    return [*lines, *(f"  {row}" for row in devices(state.order.expected))] if state.order else lines


def shares(expected: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    """Return the devices that take anything by the names that people read, each with its bytes by kind."""
    return [(_name(device), kinds) for device, kinds in expected.items() if sum(kinds.values())]


def devices(expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Draw what every device takes, in bytes by kind, as a share of all."""
    every = sum(sum(kinds.values()) for kinds in expected.values())
    width = max((len(_name(device)) for device in expected), default=0)
    rows = []
    for device, kinds in expected.items():
        if total := sum(kinds.values()):
            parts = ", ".join(f"{kind} {format_bytes(n)}" for kind, n in kinds.items() if n)
            rows.append(f"{_name(device):<{width}} {bar(total / every)} {format_bytes(total)}: {parts}")
    return rows


def bar(share: float) -> str:
    """Draw a share from 0 to 1."""
    done = round(max(0.0, min(1.0, share)) * BAR)
    return FULL * done + EMPTY * (BAR - done)


def _name(device: str) -> str:
    return "CPU" if device == "host" else device


def _warning(gauges: Gauges) -> str:
    if not gauges.nearly_full:
        return ""
    return ", oldest turns will be dropped soon" if gauges.drops else ", nearly full"
