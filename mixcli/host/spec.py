"""Which model a host process holds and how: HostName finds it, HostSpec starts it."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixcli import paths
from profiles.placement import Placement


@dataclass(frozen=True)
class HostName:
    """A GGUF's absolute path, the name that people know it by, and what was asked of its placement (canonical text).

    Whoever asks the same of the same file shares one process. The placement itself is no part of the name: it depends on the
    memory that was free before the model took it.
    """

    path: Path
    label: str
    asked: str

    @cached_property
    def socket(self) -> Path:
        """Give the unix socket of the host: a changed file, or another question, has another."""
        status = self.path.stat()
        identity = [os.fspath(self.path), status.st_size, status.st_mtime_ns, self.asked]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return paths.runtime_dir() / f"{key}.sock"

    @property
    def lock(self) -> Path:
        return self.socket.with_suffix(".lock")

    @property
    def log(self) -> Path:
        return self.socket.with_suffix(".log")


@dataclass(frozen=True)
class HostSpec:
    """A host's whole order: its name and where the model shall live."""

    name: HostName
    placement: Placement

    def to_json(self) -> str:
        """Give the text that starts a host."""
        name = {"path": os.fspath(self.name.path), "label": self.name.label, "asked": self.name.asked}
        return json.dumps({"name": name, "placement": self.placement.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "HostSpec":
        """Read what `to_json` wrote."""
        data = json.loads(text)
        name = data["name"]
        return cls(
            HostName(Path(name["path"]), name["label"], name["asked"]), Placement.from_json(data["placement"])
        )
