"""What a port of `mixcli serve` says of itself and of its models to programs of this user, such as `mixcli top`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from mixcli.host.protocol.messages import Fields, number_in, object_of, whole_in

LOADED = "loaded"


@dataclass(frozen=True)
class PortModel:
    """One model of a port: `status` is loaded, unloaded, loading, unloading or failed.

    `progress` is the share of a load, `reason` why it failed. `n_answering` requests have the model, `n_waiting` wait until it is loaded. `expires_in` is
    the seconds until it is unloaded for being unused, None for one that is used or stays.
    """

    model: str
    status: str
    progress: float | None = None
    reason: str | None = None
    n_answering: int | None = None
    n_waiting: int | None = None
    expires_in: float | None = None

    @classmethod
    def of(cls, said: Fields) -> "PortModel":
        """Read what `asdict` returned; what another version says otherwise is None."""
        reason = said.get("reason")
        return cls(
            str(said.get("model")),
            str(said.get("status")),
            number_in(said.get("progress")),
            reason if isinstance(reason, str) else None,
            whole_in(said.get("n_answering")),
            whole_in(said.get("n_waiting")),
            number_in(said.get("expires_in")),
        )


@dataclass(frozen=True)
class SharedDevice:
    """The bytes of a device that the models of a port may take, and those that no loaded one takes, by the plans."""

    limit: int
    free: int


@dataclass(frozen=True)
class PortState:
    """A port: whether the models of its start are loaded ("loading", "ready"), its models, and the memory that several of them share, by device."""

    status: str
    models: tuple[PortModel, ...] = ()
    memory: Mapping[str, SharedDevice] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Fields) -> "PortState":
        """Read what `to_json` returned, also of another version."""
        listed = body.get("models")
        models = tuple(PortModel.of(object_of(one)) for one in listed) if isinstance(listed, list) else ()
        return cls(str(body.get("status")), models, _shared(object_of(body.get("memory"))))

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)


def _shared(said: Fields) -> Mapping[str, SharedDevice]:
    found = {}
    for device, numbers in said.items():
        limit, free = (whole_in(object_of(numbers).get(name)) for name in ("limit", "free"))
        if limit is not None and free is not None:
            found[device] = SharedDevice(limit, free)
    return found
