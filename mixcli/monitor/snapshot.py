"""What runs on this machine at one moment: hosts and ports as they answer, with the memory of their processes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

from mixcli.client.host_watch import STOPPING, UNRESPONSIVE, HostWatch
from mixcli.client.port_watch import PortWatch, ServedPort
from mixcli.host.protocol.health import HostCounts, HostHealth, HostUse
from mixcli.system.process_state import born, resident

REPLY_TIMEOUT = 1.7  # seconds for a host or a port to answer
LOOK = 1.9  # seconds of a look after which each has answered or is late
ENDED = "ended"
ENDED_SHOWN = 10.0  # seconds for which a host that has ended is still shown

# what a loaded model always has in JSON, null where the host does not report it
REPORTED = (
    "progress",
    "notes",
    *(one.name for one in fields(HostCounts)),
    *(one.name for one in fields(HostUse)),
    "kv_usage",
)


@dataclass(frozen=True)
class SeenHost:
    """A host as it answers, and the bytes of host memory that its process has, mapped files with them; None where the system does not tell."""

    host: HostHealth
    resident: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; it has the same fields for every host."""
        return {**dict.fromkeys(REPORTED), **self.host.to_json(), "resident": self.resident}


@dataclass(frozen=True)
class Snapshot:
    """The models that are loaded, and the ports that `mixcli serve` has open, each in the order of their names."""

    models: tuple[SeenHost, ...] = ()
    ports: tuple[ServedPort, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the JSON object of `mixcli top --json`."""
        return {
            "models": [one.to_json() for one in self.models],
            "servers": [one.to_json() for one in self.ports],
        }


class Monitor:
    """Looks at hosts and ports again and again; what does not answer never holds up a look for longer than that may take."""

    def __init__(self) -> None:
        self._hosts, self._ports = HostWatch(REPLY_TIMEOUT), PortWatch(REPLY_TIMEOUT)
        self._seen: dict[int, HostHealth] = {}
        self._ended: dict[int, tuple[float, HostHealth]] = {}

    def look(self, seconds: float = LOOK) -> Snapshot:
        """Ask all that runs, and return what has answered within so many seconds; what is late has what it said the last time."""
        deadline = time.monotonic() + seconds
        self._hosts.send()
        self._ports.send()
        hosts = self._hosts.states(max(0.0, deadline - time.monotonic()))
        ports = self._ports.states(max(0.0, deadline - time.monotonic()))
        models = [SeenHost(host, resident(host.pid)) for host in (*hosts, *self._gone(hosts))]
        models.sort(key=lambda one: (one.host.model or "", one.host.pid))
        return Snapshot(tuple(models), tuple(sorted(ports, key=lambda port: (port.url, port.pid))))

    def _gone(self, hosts: Sequence[HostHealth]) -> list[HostHealth]:
        """Return the hosts that ran in the last looks and have ended, for ENDED_SHOWN seconds."""
        now, running = time.monotonic(), {host.pid: host for host in hosts}
        for pid, host in self._seen.items():
            if pid not in running and not born(pid):
                self._ended[pid] = now, HostHealth(ENDED, pid, model=host.model, path=host.path)
        self._seen = running
        self._ended = {
            pid: (at, host)
            for pid, (at, host) in self._ended.items()
            if now - at < ENDED_SHOWN and pid not in running
        }
        return [host for _, host in self._ended.values()]


def unloads(host: HostHealth) -> str:
    """Return when a model is unloaded, in words that follow "unloads"."""
    if host.status == UNRESPONSIVE:
        return "with `mixcli stop`"
    if host.status == STOPPING:
        return "now"
    if host.busy:
        return "when unused"
    return "with `mixcli stop`" if host.expires_in is None else f"in {host.expires_in:.0f} s"
