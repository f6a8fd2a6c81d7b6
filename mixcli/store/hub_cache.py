"""The Hugging Face cache on disk, in the layout that all tools share: blobs/<etag>, snapshots/<commit>/<name>, refs/<revision>.

Standard library only, so that a list of models costs no import of huggingface_hub. Where the cache lies follows its rules
(HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME).
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mixcli.system.json_cache import replace_text
from mixcli.system.paths import hub_cache_dir

TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}


@dataclass(frozen=True)
class CachedRepo:
    """One model repository's place in the cache; nothing is created before it is written to."""

    repo: str

    @property
    def folder(self) -> Path:
        return hub_cache_dir() / f"models--{self.repo.replace('/', '--')}"

    def blob(self, etag: str) -> Path:
        return self.folder / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Return the path of the part file of an unfinished download."""
        return self.folder / "blobs" / f"{etag}.mixcli.incomplete"

    def lock(self, etag: str) -> Path:
        """Return the lock that huggingface_hub takes for the same file."""
        return hub_cache_dir() / ".locks" / self.folder.name / f"{etag}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def whole(self, commit: str, name: str, etag: str) -> Path:
        """Return where a snapshot's file is when it is complete: its blob, or the pointer where links are not possible and it is the file itself."""
        blob, pointer = self.blob(etag), self.snapshot(commit) / name
        return pointer if not blob.exists() and _is_itself_a_file(pointer) else blob

    def here(self, commit: str, name: str, etag: str) -> Path:
        """Return what there is of a snapshot's file: the whole, or the part; the part need not exist."""
        whole = self.whole(commit, name, etag)
        return whole if whole.exists() else self.part(etag)

    def link(self, commit: str, name: str, etag: str) -> Path:
        """Let a snapshot's file point to its blob and return it; without links the blob itself is moved there, as huggingface_hub does."""
        pointer, blob = self.snapshot(commit) / name, self.blob(etag)
        if self.whole(commit, name, etag) == pointer:
            return pointer
        pointer.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(blob, pointer.parent)
        if not (pointer.is_symlink() and pointer.readlink() == Path(target)):
            fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            (fresh if _symlinked(fresh, target) else blob).replace(pointer)
        return pointer

    def remember(self, revision: str, commit: str) -> None:
        """Write down which commit a branch or tag was."""
        if revision != commit:
            ref = self.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            replace_text(ref, commit, 0o666)

    def forget(self, pointer: Path, etag: str) -> None:
        """Remove a snapshot's file, and its blob when no other snapshot points to it.

        The etag names the blob of a pointer that is a copy of it, as in a cache that was moved without its links.
        """
        if not os.path.lexists(pointer):
            return
        blob = pointer.resolve() if pointer.is_symlink() else self.blob(etag).resolve()
        pointer.unlink()
        shared = any(other.is_symlink() and other.resolve() == blob for other in self.pointers())
        if not shared and blob.is_file() and blob.is_relative_to(self.folder.resolve()):
            blob.unlink()
        for folder in pointer.parents:
            if folder == self.folder or any(folder.iterdir()):
                break
            folder.rmdir()

    def pointers(self) -> Iterator[Path]:
        """Return every file of every snapshot."""
        return (path for path in self.folder.glob("snapshots/*/**/*") if not path.is_dir())


def name_in_snapshot(path: Path) -> str:
    """Return the name that a file of a snapshot has in its repository; empty for any other path."""
    for at, (folder, place) in enumerate(pairwise(path.parts)):
        if folder.startswith("models--") and place == "snapshots":
            return "/".join(path.parts[at + 3 :])
    return ""


def _is_itself_a_file(pointer: Path) -> bool:
    return pointer.is_file() and not pointer.is_symlink()


def _symlinked(pointer: Path, target: str) -> bool:
    """Make a link; False where the file system has none, or huggingface_hub was told to make none."""
    if os.environ.get("HF_HUB_DISABLE_SYMLINKS", "").upper() in TRUE:
        return False
    try:
        pointer.symlink_to(target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    return True


def repositories() -> Iterator[tuple[CachedRepo, Path]]:
    """Yield every model repository of the cache with its newest snapshot's folder; what cannot be read is left out."""
    for folder in sorted(hub_cache_dir().glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        try:
            snapshots = [path for path in folder.glob("snapshots/*") if path.is_dir()]
            newest = max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
        except OSError:
            continue
        if newest is not None:
            yield CachedRepo(repo), newest
