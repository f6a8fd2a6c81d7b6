"""What identifies a host: all that a client needs to find one that is running."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixcli.system import paths
from quantize.sources.shard_names import shard_paths


@dataclass(frozen=True)
class HostName:
    """A GGUF's absolute path, the name that people know it by, and what was asked of its placement (canonical text).

    Equal requests for the same file share one process. The name does not include the placement: it depends on the
    memory that was free before the model took it.
    """

    path: Path
    label: str
    asked: str

    @cached_property
    def socket(self) -> Path:
        """Return the unix socket of the host: a changed file or shard, or another question, has another."""
        # a missing shard is named where the model is loaded
        others = [file for file in shard_paths(self.path) if file != self.path and file.exists()]
        marks: list[int] = []
        for status in (file.stat() for file in (self.path, *others)):
            # not the change time: a hard link or chmod changes it, and a second host of the same file would fill the memory
            marks += [status.st_ino, status.st_size, status.st_mtime_ns]
        identity = [os.fspath(self.path), *marks, self.asked]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return paths.runtime_dir() / f"{key}.sock"

    @property
    def lock(self) -> Path:
        return self.socket.with_suffix(".lock")

    @property
    def log(self) -> Path:
        return self.socket.with_suffix(".log")
