"""The whole state of a host, as /health and `mixcli ps` show it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mixcli.host.protocol.messages import Fields, number_in, whole_in
from mixcli.host.protocol.status import texts_in


@dataclass(frozen=True)
class HostCounts:
    """How many requests run, wait and are done, how many prompt tokens were computed, and the threads of decode now."""

    n_running: int = 0
    n_waiting: int = 0
    n_requests_done: int = 0
    n_prompt_tokens_done: int = 0
    n_threads: int = 0


@dataclass(frozen=True)
class HostUse:
    """What a loaded model does and holds now; None for what a host does not report, as before the load and from an older mixcli.

    `prefill_tps` and `decode_tps` are tok/s over the last seconds, of all requests together. Of the KV cache's `n_kv_cells` cells,
    each of one token, some text holds `n_kv_cells_used`. Of the `n_prompt_tokens` of requests that ended, `n_prompt_tokens_cached` were found in the KV cache.
    `memory` is the plan's bytes on each device ("host", "CUDA0"): weights, KV cache and compute buffers. `step_seconds` is how long the
    engine's current step has taken, 0 while it has nothing to do.
    """

    prefill_tps: float | None = None
    decode_tps: float | None = None
    n_kv_cells: int | None = None
    n_kv_cells_used: int | None = None
    n_prompt_tokens: int | None = None
    n_prompt_tokens_cached: int | None = None
    memory: Mapping[str, int] | None = None
    step_seconds: float | None = None

    @classmethod
    def of(cls, body: Fields) -> "HostUse":
        """Read what a host answers; what is not a number is not reported."""
        return cls(
            number_in(body.get("prefill_tps")),
            number_in(body.get("decode_tps")),
            whole_in(body.get("n_kv_cells")),
            whole_in(body.get("n_kv_cells_used")),
            whole_in(body.get("n_prompt_tokens")),
            whole_in(body.get("n_prompt_tokens_cached")),
            _ledger(body.get("memory")),
            number_in(body.get("step_seconds")),
        )

    @property
    def kv_usage(self) -> float | None:
        """Return the share of the KV cache's cells that some text holds, from 0 to 1; None where that is not reported."""
        if self.n_kv_cells is None or self.n_kv_cells_used is None:
            return None
        return round(self.n_kv_cells_used / max(1, self.n_kv_cells), 4)

    def to_json(self) -> dict[str, object]:
        """Return the fields that are known, and `kv_usage`."""
        fields = {**vars(self), "kv_usage": self.kv_usage}
        return {name: value for name, value in fields.items() if value is not None}


def _ledger(value: object) -> Mapping[str, int] | None:
    if not isinstance(value, dict):
        return None
    known = {device: whole_in(n_bytes) for device, n_bytes in value.items()}
    return {device: n_bytes for device, n_bytes in known.items() if n_bytes is not None}


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
    use: HostUse = HostUse()

    @classmethod
    def of(cls, body: Fields) -> "HostHealth":
        """Read what a host answers, also one of another version; ValueError if it is not the answer of a host."""
        named = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        counts = {name: body[name] for name in HostCounts.__dataclass_fields__ if name in body}
        try:
            return cls(
                **{**named, "notes": texts_in(body.get("notes"))},  # type: ignore[arg-type]
                counts=HostCounts(**counts),  # type: ignore[arg-type]
                use=HostUse.of(body),
            )
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
        return {**own, **self.use.to_json(), "busy": self.busy, "expires_in": self.expires_in}
