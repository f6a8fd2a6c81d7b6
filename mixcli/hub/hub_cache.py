"""The Hugging Face cache on disk, in the layout that every tool shares: blobs/<etag>, snapshots/<commit>/<name>, refs/<revision>.

Standard library only, so that a list of models costs no import of huggingface_hub. Where the cache lies follows its rules
(HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME).
"""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mixcli import paths

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}


def root() -> Path:
    """Return the folder of the cache."""
    if place := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return _expanded(place)
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return _expanded(home) / "hub"


def _expanded(text: str) -> Path:
    return paths.expanded(os.path.expandvars(text))


@dataclass(frozen=True)
class CachedRepo:
    """One model repository's place in the cache; nothing is created before it is written to."""

    repo: str

    @property
    def folder(self) -> Path:
        return root() / f"models--{self.repo.replace('/', '--')}"

    def blob(self, etag: str) -> Path:
        return self.folder / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Return the one file that an unfinished download is in, whichever process goes on with it."""
        return self.folder / "blobs" / f"{etag}.mixcli.incomplete"

    def lock(self, etag: str) -> Path:
        """Return the lock that huggingface_hub takes for the same file."""
        return root() / ".locks" / self.folder.name / f"{etag}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def link(self, commit: str, name: str, etag: str) -> Path:
        """Let a snapshot's file point to a blob; gives the file."""
        pointer = self.snapshot(commit) / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self.blob(etag), pointer.parent)
        if not (pointer.is_symlink() and pointer.readlink() == Path(target)):
            fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            _point(fresh, target, self.blob(etag))
            fresh.replace(pointer)
        return pointer

    def remember(self, revision: str, commit: str) -> None:
        """Write down which commit a branch or tag was."""
        if revision != commit:
            ref = self.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)

    def forget(self, pointer: Path) -> int:
        """Remove a snapshot's file, and its blob when no other snapshot needs it; gives the bytes that this frees."""
        blob = pointer.resolve()
        pointer.unlink(missing_ok=True)
        shared = any(other.is_symlink() and other.resolve() == blob for other in self.pointers())
        freed = 0
        if not shared and blob.is_file() and blob.is_relative_to(self.folder.resolve()):
            freed = blob.stat().st_size
            blob.unlink()
        for folder in pointer.parents:
            if folder == self.folder or any(folder.iterdir()):
                break
            folder.rmdir()
        return freed

    def pointers(self) -> Iterator[Path]:
        """Return every file of every snapshot."""
        return (path for path in self.folder.glob("snapshots/*/**/*") if not path.is_dir())


def _point(pointer: Path, target: str, blob: Path) -> None:
    """Make a pointer to a blob: a link, a second name where the file system has no links, else a copy."""
    try:
        pointer.symlink_to(target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            os.link(blob, pointer)
        except OSError:
            shutil.copyfile(blob, pointer)


def repositories() -> Iterator[tuple[CachedRepo, Path]]:
    """Yield every model repository of the cache with its newest snapshot's folder; what cannot be read is left out."""
    for folder in sorted(root().glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        try:
            snapshots = [path for path in folder.glob("snapshots/*") if path.is_dir()]
            newest = max(snapshots, key=lambda path: path.stat().st_mtime, default=None)
        except OSError:
            continue
        if newest is not None:
            yield CachedRepo(repo), newest
