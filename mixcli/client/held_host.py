"""One host that a server holds: loaded at its start, and started again when its process ended."""

from collections.abc import Callable
from pathlib import Path

from mixcli.client.process import Host
from mixcli.errors import MixcliError
from mixcli.system.console import console

Report = Callable[[float], None]  # how far a load is, from 0 to 1


def _unseen(_share: float) -> None:
    """Show nothing."""


class HeldHost:
    """Holds a host until `release`; `load` starts one, or attaches to it. `label` is the model's name."""

    def __init__(self, load: Callable[[Report], Host], label: str) -> None:
        self._load, self._label = load, label
        self._host: Host | None = None
        self._dead: Host | None = None  # the one whose end was noted

    def load(self, report: Report = _unseen) -> Host:
        """Return the loaded host; MixcliError says why there is none."""
        self._host = self._load(report)
        return self._host

    def revive(self) -> Path:
        """Start the host again after its process ended, and return its socket. A load that fails raises its error, and can be tried again."""
        if self._host is not None and self._host is not self._dead:
            console.warn(f"the model process crashed ({self._host.cause_of_death()}); restarting it")
            self._dead = self._host
            self._host.release()
        try:
            return self.load().socket
        except MixcliError as error:
            console.warn(f"{self._label} cannot be loaded: {error}; the next request tries again")
            raise

    def known_cause(self) -> str:
        """Return why the process ended, where it knew that itself; else nothing."""
        return self._host.known_cause() if self._host is not None else ""

    def kill(self) -> None:
        """End the process at once, because it hangs; MixcliError where the system does not let it go."""
        if self._host is not None:
            self._host.kill()

    def release(self) -> None:
        """Release the model, if it was loaded."""
        if self._host is not None:
            self._host.release()
