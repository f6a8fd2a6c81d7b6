"""mixcli verify: compare every byte of a model with its checksum."""

from dataclasses import dataclass
from pathlib import Path

from mixcli.store.hashing import Report, sha256
from mixcli.store.store import StoredModel


@dataclass(frozen=True)
class Verdict:
    """What was found of one file: `expected` is "" where no checksum is known."""

    path: Path
    expected: str
    found: str

    @property
    def is_sound(self) -> bool:
        return self.expected in {"", self.found}


def verify(model: StoredModel, report: Report) -> list[Verdict]:
    """Hash all files of a model again."""
    if model.manifest:
        expected = tuple(file.sha256 for file in model.manifest.files)
    else:
        expected = model.seen.sha256 if model.seen else ("",) * len(model.parts)
    return [
        Verdict(path, known, sha256(path, report)) for path, known in zip(model.parts, expected, strict=True)
    ]
