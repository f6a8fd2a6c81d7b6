"""The state of a load, as a host reports it to those who wait."""

from typing import NamedTuple

from mixcli.host.protocol.errors import ErrorBody, error_in
from mixcli.host.protocol.messages import Fields


def texts_in(value: object) -> tuple[str, ...]:
    """Return a list as texts; nothing for any other value."""
    return tuple(map(str, value)) if isinstance(value, list) else ()


class LoadStatus(NamedTuple):
    """An event of the attach stream: `progress` is a share, `speculates` whether the model follows drafts, `error` why the load failed."""

    status: str
    progress: float
    notes: tuple[str, ...]
    pid: int
    speculates: bool = False
    error: ErrorBody | None = None

    @classmethod
    def of(cls, event: Fields) -> "LoadStatus":
        """Read an event; one that is only an error, as a host that ends sends, is a failed load."""
        progress, pid = event.get("progress"), event.get("pid")
        return cls(
            str(event.get("status")),
            progress if isinstance(progress, int | float) else 0.0,
            texts_in(event.get("notes")),
            pid if isinstance(pid, int) else 0,
            event.get("speculates") is True,
            error_in(event),
        )

    def to_json(self) -> dict[str, object]:
        """Return the event."""
        shown: dict[str, object] = {
            "status": self.status,
            "progress": self.progress,
            "notes": list(self.notes),
            "pid": self.pid,
            "speculates": self.speculates,
        }
        return {**shown, **self.error.to_json()} if self.error else shown
