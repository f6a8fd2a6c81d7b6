"""Find models that other programs downloaded: the Hugging Face cache, Ollama, LM Studio; read-only.

What these programs wrote is untrusted input: sizes are limited, names are checked, and whatever does not fit is left out.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixcli.store import gguf_names, hub_cache
from mixcli.system import paths

MAX_MANIFEST = 1 << 20
MAX_SEEN = 100_000  # entries of one folder with all below it
MAX_DEPTH = 16
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL_LAYER = "application/vnd.ollama.image.model"
HUB, OLLAMA, LM_STUDIO = "Hub cache", "Ollama", "LM Studio"


@dataclass(frozen=True)
class ForeignModel:
    """A model that is seen: `label` is how a person names it, `files` are its parts; `sha256` of each, "" where nothing tells it."""

    label: str
    files: tuple[Path, ...]
    keeper: str
    sha256: tuple[str, ...]
    removal: str

    @property
    def path(self) -> Path:
        return self.files[0]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files if _is_file(path))


def foreign_models() -> list[ForeignModel]:
    """List what is seen, each label once."""
    found: dict[str, ForeignModel] = {}
    for look in (_in_hub_cache, _in_ollama, _in_lm_studio):
        try:
            for model in look():
                found.setdefault(model.label, model)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            continue  # a folder of another program that cannot be read is skipped
    return list(found.values())


def ollama_dir() -> Path:
    return paths.expanded(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models")


def lm_studio_dir() -> Path:
    if place := os.environ.get("LMSTUDIO_MODELS"):
        return paths.expanded(place)
    here, before = paths.expanded("~/.lmstudio/models"), paths.expanded("~/.cache/lm-studio/models")
    return here if here.is_dir() or not before.is_dir() else before


def _in_hub_cache() -> Iterator[ForeignModel]:
    for cached, snapshot in hub_cache.repositories():
        for files in _models_in(snapshot):
            digests = tuple(path.resolve().name for path in files)
            yield ForeignModel(
                _label(cached.repo, snapshot, files[0]),
                files,
                HUB,
                tuple(name if _SHA256.fullmatch(name) else "" for name in digests),
                f"hf cache rm model/{cached.repo}",
            )


def _in_ollama() -> Iterator[ForeignModel]:
    store = ollama_dir()
    for path in sorted((store / "manifests").glob("*/*/*/*")):
        digest = _ollama_digest(path)
        blob = store / "blobs" / f"sha256-{digest}"
        if digest and _is_file(blob):
            host, owner, name, tag = path.relative_to(store / "manifests").parts
            known = name if owner == "library" else f"{owner}/{name}"
            known = known if host == "registry.ollama.ai" else f"{host}/{known}"
            yield ForeignModel(
                f"ollama/{known}:{tag}", (blob,), OLLAMA, (digest,), f"ollama rm {known}:{tag}"
            )


def _ollama_digest(path: Path) -> str | None:
    """Return the checksum of the model's layer in one of Ollama's manifests."""
    try:
        if not _is_file(path) or path.stat().st_size > MAX_MANIFEST:
            return None
        layers = json.loads(path.read_bytes())["layers"]
        layer = next(layer for layer in layers if layer["mediaType"] == _MODEL_LAYER)
        match = _DIGEST.fullmatch(layer["digest"])
    except (OSError, ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None
    return match[1] if match else None


def _in_lm_studio() -> Iterator[ForeignModel]:
    folder = lm_studio_dir()
    for repo in sorted(path for path in folder.glob("*/*") if os.path.isdir(path)):  # noqa: PTH112  # never raises
        for files in _models_in(repo):
            name = f"lmstudio/{'/'.join(repo.relative_to(folder).parts)}"
            yield ForeignModel(
                _label(name, repo, files[0]), files, LM_STUDIO, ("",) * len(files), "LM Studio"
            )


def _models_in(folder: Path) -> Iterable[tuple[Path, ...]]:
    found = sorted(_gguf_files(folder))
    return gguf_names.models(found, lambda path: str(path.relative_to(folder)))


def _gguf_files(folder: Path) -> Iterator[Path]:
    """Find regular files by their name. Links to folders are not followed, what cannot be read is left out, and looking has an end."""
    n_seen = 0
    for place, folders, names in os.walk(folder):
        n_seen += len(folders) + len(names)
        if n_seen > MAX_SEEN or place.count(os.sep) - str(folder).count(os.sep) >= MAX_DEPTH:
            folders.clear()
        folders.sort()
        for name in names[:MAX_SEEN]:
            if name.lower().endswith(".gguf") and _is_file(path := Path(place, name)):
                yield path


def _is_file(path: Path) -> bool:
    """Return whether a path leads to a regular file; False for what cannot be looked at."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _label(repo: str, folder: Path, file: Path) -> str:
    """Name a model by its repository and type, or by its repository and file where the file's name says no type."""
    return f"{repo}:{gguf_names.file_type(file.name) or file.relative_to(folder).with_suffix('')}"
