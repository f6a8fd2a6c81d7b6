"""Models that other programs have brought to this machine: the Hugging Face cache, Ollama, LM Studio. They are seen, never changed.

What these programs wrote is data of unknown hands: sizes are limited, names are checked, and whatever does not fit is left out.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mixcli import paths
from mixcli.hub import gguf_names, hub_cache

MAX_MANIFEST = 1 << 20
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODEL_LAYER = "application/vnd.ollama.image.model"
HUB, OLLAMA, LM_STUDIO = "Hub cache", "Ollama", "LM Studio"


@dataclass(frozen=True)
class Sighting:
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
        return sum(path.stat().st_size for path in self.files)


def sightings() -> list[Sighting]:
    """List what is seen, each label once."""
    found: dict[str, Sighting] = {}
    for sighting in (*_in_hub_cache(), *_in_ollama(), *_in_lm_studio()):
        found.setdefault(sighting.label, sighting)
    return list(found.values())


def ollama_dir() -> Path:
    return paths.expanded(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models")


def lm_studio_dir() -> Path:
    if place := os.environ.get("LMSTUDIO_MODELS"):
        return paths.expanded(place)
    here, before = paths.expanded("~/.lmstudio/models"), paths.expanded("~/.cache/lm-studio/models")
    return here if here.is_dir() or not before.is_dir() else before


def _in_hub_cache() -> Iterator[Sighting]:
    for cached, snapshot in hub_cache.repositories():
        for files in _models_in(snapshot):
            digests = tuple(path.resolve().name for path in files)
            yield Sighting(
                _label(cached.repo, snapshot, files[0]),
                files,
                HUB,
                tuple(name if _SHA256.fullmatch(name) else "" for name in digests),
                f"hf cache rm model/{cached.repo}",
            )


def _in_ollama() -> Iterator[Sighting]:
    store = ollama_dir()
    for path in sorted((store / "manifests").glob("*/*/*/*")):
        digest = _ollama_digest(path)
        blob = store / "blobs" / f"sha256-{digest}"
        if digest and blob.is_file():
            host, owner, name, tag = path.relative_to(store / "manifests").parts
            known = name if owner == "library" else f"{owner}/{name}"
            known = known if host == "registry.ollama.ai" else f"{host}/{known}"
            yield Sighting(f"ollama/{known}:{tag}", (blob,), OLLAMA, (digest,), f"ollama rm {known}:{tag}")


def _ollama_digest(path: Path) -> str | None:
    """Give the checksum of the model's layer in one of Ollama's manifests."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_MANIFEST:
            return None
        layers = json.loads(path.read_bytes())["layers"]
        layer = next(layer for layer in layers if layer["mediaType"] == _MODEL_LAYER)
        match = _DIGEST.fullmatch(layer["digest"])
    except (OSError, ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None
    return match[1] if match else None


def _in_lm_studio() -> Iterator[Sighting]:
    folder = lm_studio_dir()
    for repo in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        for files in _models_in(repo):
            name = f"lmstudio/{'/'.join(repo.relative_to(folder).parts)}"
            yield Sighting(_label(name, repo, files[0]), files, LM_STUDIO, ("",) * len(files), "LM Studio")


def _models_in(folder: Path) -> Iterable[tuple[Path, ...]]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".gguf" and path.is_file())
    return gguf_names.models(found, lambda path: str(path.relative_to(folder)))


def _label(repo: str, folder: Path, file: Path) -> str:
    """Name a model by its repository and type, or by its repository and file where the file's name says no type."""
    return f"{repo}:{gguf_names.file_type(file.name) or file.relative_to(folder).with_suffix('')}"
