"""The whole state of a host, as /health and `mixcli ps` show it."""

from dataclasses import asdict, dataclass

from mixcli.host.protocol.messages import Fields
from mixcli.host.protocol.status import texts_in


@dataclass(frozen=True)
class HostCounts:
    """How many requests run, wait and are done, how many prompt tokens were computed, the threads of decode now, and how full the KV cache is.

    `kv_usage` is the share of its cells that some text holds.
    """

    n_running: int = 0
    n_waiting: int = 0
    n_requests_done: int = 0
    n_prompt_tokens_done: int = 0
    n_threads: int = 0
    kv_usage: float = 0.0


@dataclass(frozen=True)
class HostHealth:
    """The state of a host as /health and `mixcli ps` show it; of one that does not answer most is None.

    `size` is the file's bytes, `busy` counts clients and requests, `expires_in` is seconds, None for never.
    """

    status: str
    pid: int
    progress: float | None = None
    notes: tuple[str, ...] = ()
    model: str | None = None
    path: str | None = None
    size: int | None = None
    n_ctx: int | None = None
    counts: HostCounts = HostCounts()
    busy: int | None = None
    expires_in: float | None = None

    @classmethod
    def of(cls, body: Fields) -> "HostHealth":
        """Read what a host answers, also one of another version; ValueError if it is not the answer of a host."""
        named = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        counts = {name: body[name] for name in HostCounts.__dataclass_fields__ if name in body}
        try:
            return cls(**{**named, "notes": texts_in(body.get("notes"))}, counts=HostCounts(**counts))  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"/health: {error}") from error

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; a host that does not answer has no progress, notes and counts."""
        own: dict[str, object] = {"status": self.status}
        if self.progress is not None:
            own |= {"progress": self.progress, "notes": list(self.notes)}
        own |= {
            "model": self.model,
            "path": self.path,
            "size": self.size,
            "n_ctx": self.n_ctx,
            "pid": self.pid,
        }
        if self.progress is not None:
            own |= asdict(self.counts)
        return {**own, "busy": self.busy, "expires_in": self.expires_in}
