"""The manifest.json of a stored model."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixcli.system import paths
from mixcli.system.regular_file import read_regular
from mixcli.system.text import clean

NAME = "manifest.json"
MAX_BYTES = 1 << 20
_IN_NO_PATH = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


@dataclass(frozen=True)
class StoredFile:
    """One file of a model: `path` is relative to the model's folder, or absolute where the file is kept elsewhere."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The record of a stored model: its files in the order of their parts, `created` in ISO 8601 (UTC).

    `keeper` says whose the files are: "mixcli" made them, "hub" is the Hugging Face cache, "user" a file that was imported in place. `revision` is the commit that they came from.
    """

    name: str
    type: str
    files: tuple[StoredFile, ...]
    description: str
    license: str
    license_words: str
    origin: str
    created: str
    keeper: str = "mixcli"
    revision: str = ""
    prompt: str = ""
    alignment: str = ""

    @property
    def label(self) -> str:
        """Return the name that a person would type for it."""
        return f"{self.name}:{self.type}"

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """Return the checksum of the first file, which is the only one of most models."""
        return self.files[0].sha256

    def to_json(self) -> str:
        """Return the text that `read` takes."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        if clean(text) != text:  # a file's name that is not UTF-8 keeps its bytes as escapes
            text = json.dumps(asdict(self), indent=2)
        return text + "\n"

    def paths(self, folder: Path) -> tuple[Path, ...]:
        """Return the paths of the files."""
        return tuple(folder / file.path for file in self.files)


def homes() -> list[Path]:
    """List the folders of the store's models, sound or not."""
    try:
        found = sorted(paths.models_dir().iterdir())
    except FileNotFoundError:
        return []
    return [home for home in found if "--" in home.name and home.name[0] != "."]


def read(path: Path) -> Manifest | None:
    """Read a manifest; None for one that is torn, of another version, or points to nothing."""
    try:
        stored_fields: dict[str, Any] = json.loads(read_regular(path, MAX_BYTES))
        # the first manifests spelled it "licence"
        fields = {name.replace("licence", "license"): value for name, value in stored_fields.items()}
        stored = tuple(StoredFile(**file) for file in fields.pop("files"))
        manifest = Manifest(files=stored, **fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return manifest if _is_sound(manifest) else None


def _is_sound(manifest: Manifest) -> bool:
    """Return whether every field has its type, and files that mixcli made are in the model's own folder."""
    words = (value for name, value in vars(manifest).items() if name != "files")
    return (
        bool(manifest.files)
        and all(map(_is_text, words))
        and clean(manifest.label) == manifest.label
        and all(
            _is_text(file.path)
            and _is_text(file.sha256)
            and type(file.size) is int
            and (manifest.keeper != "mixcli" or _is_inside(file.path))
            for file in manifest.files
        )
    )


def _is_text(word: object) -> bool:
    """Return whether a word can be shown, and be part of a path: no NUL, and no surrogate that stands for no byte."""
    return isinstance(word, str) and not _IN_NO_PATH.search(word)


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")
