"""A GGUF out of a repository: which one, does it run here, and then every byte of it into the Hub's cache."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mixcli import paths
from mixcli.engine.preflight import check_header
from mixcli.errors import DoesNotFit, IntegrityError, UsageError
from mixcli.hardware import memory_free
from mixcli.hub import download, fit, gguf_names, hub_cache, store
from mixcli.hub.build import About, convert_to
from mixcli.hub.hashing import Report, sha256
from mixcli.hub.headers import has_split_experts, model_header, shape_of, template_note
from mixcli.hub.hub_cache import CachedRepo
from mixcli.hub.job import FileCost, Summary, check_disk
from mixcli.hub.manifest import StoredFile
from mixcli.hub.remote import RemoteFile, RemoteReader, RemoteRepo
from mixcli.hub.store import StoredModel
from mixcli.words import size
from quantize.gguf_header import GgufHeader

WANTED = "wanted.json"


@dataclass(frozen=True)
class Choice:
    """The files of one type in a repository, with the header that was read from them, and all types that could be had."""

    type: str
    files: tuple[RemoteFile, ...]
    header: GgufHeader
    heads: tuple[bytes, ...]
    offers: tuple[fit.Offer, ...]


def choose(repo: RemoteRepo, wanted: str | None, file: str | None) -> Choice:
    """Find the GGUF that is meant: by its type, by its file's name, or the best that fits into the memory that is free.

    Raises UsageError for a type that is not there, DoesNotFit when nothing fits and no type was named, IntegrityError for a
    file that is no sound GGUF.
    """
    groups = {name: group for name, group in _by_type(repo, file).items() if wanted in {None, name}}
    if not groups:
        have = ", ".join(_by_type(repo, None)) or "no GGUF at all"
        raise UsageError(f"{repo.repo} has no {file or wanted}; it has {have}")
    smallest = min(groups, key=lambda name: _size(groups[name]))
    header, heads = _read(repo, groups[smallest])
    found = fit.offers(
        ((name, _size(group)) for name, group in _by_type(repo, None).items()),
        shape_of(header),
        memory_free(),
    )
    best = fit.best([offer for offer in found if offer.type in groups])
    if best is None and wanted is None and file is None:
        least = found[0]
        raise DoesNotFit(
            f"nothing of {repo.repo} fits into memory: the smallest, {least.type}, has {size(least.size)} and {size(memory_free())} "
            f"are free; close other programs, take a smaller model (mixcli search), or name a type to have it anyway: {repo.repo}:{least.type}"
        )
    chosen = best.type if best else smallest
    if chosen != smallest:
        header, heads = _read(repo, groups[chosen])
    return Choice(chosen, groups[chosen], header, heads, tuple(found))


def _by_type(repo: RemoteRepo, file: str | None) -> dict[str, tuple[RemoteFile, ...]]:
    """Return the models of a repository by their type, smallest first; of two with the same type the one with the shorter name."""
    groups = gguf_names.models(repo.files, lambda remote: remote.name)
    if file is not None:
        groups = [group for group in groups if file in {remote.name for remote in group}]
    found: dict[str, tuple[RemoteFile, ...]] = {}
    for group in sorted(groups, key=lambda group: (len(group[0].name), group[0].name)):
        found.setdefault(gguf_names.file_type(group[0].name) or Path(group[0].name).stem.upper(), group)
    return dict(sorted(found.items(), key=lambda pair: _size(pair[1])))


def _read(repo: RemoteRepo, group: Sequence[RemoteFile]) -> tuple[GgufHeader, tuple[bytes, ...]]:
    """Read the header of a model by Range, from what is here as far as that goes."""
    cache = CachedRepo(repo.repo)
    for use_disk in (True, False):
        readers = []
        for file in group:
            here = cache.here(repo.commit, file.name, file.etag) if use_disk else None
            readers.append(RemoteReader(repo, file, here))
        try:
            header = model_header([(file.name, reader) for file, reader in zip(group, readers, strict=True)])
            if not has_split_experts(header):
                check_header(header, group[0].name)
        except IntegrityError:
            if not use_disk:
                raise
            continue  # what is here may be damaged; the download will find out
        return header, tuple(reader.head for reader in readers)
    raise AssertionError("the second time returns or raises")


def _size(group: Sequence[RemoteFile]) -> int:
    return sum(file.size for file in group)


@dataclass(frozen=True)
class GgufJob:
    """The pull of one GGUF, which may have several parts."""

    about: About
    repo: RemoteRepo
    choice: Choice
    keep_source: bool = False

    @cached_property
    def needs_repair(self) -> bool:
        return has_split_experts(self.choice.header)

    @cached_property
    def summary(self) -> Summary:
        offer = next(offer for offer in self.choice.offers if offer.type == self.choice.type)
        costs = tuple(
            FileCost(file.name, file.size, download.state(self.repo, file).here) for file in self.choice.files
        )
        missing = sum(cost.size - cost.here for cost in costs)
        if offer.fits:
            words = f"fits: {size(offer.size)} of {size(memory_free())} free memory, with a context of {offer.n_ctx} tokens"
        else:
            words = f"does not fit: {size(offer.size)} of weights and {size(memory_free())} of free memory; it will not run here as it is"
        notes = (
            ["its experts are stored one by one, as in December 2023, and will be joined without loss"]
            if self.needs_repair
            else []
        )
        return Summary(
            f"{self.about.name}:{self.choice.type}",
            self.about.description,
            self.about.licence.words,
            f"{self.repo.repo} at {self.repo.commit[:12]}",
            costs,
            _size(self.choice.files),
            missing,
            missing + (_size(self.choice.files) if self.needs_repair else 0),
            words,
            offer.fits,
            tuple(
                f"{other.type} ({size(other.size)}{'' if other.fits else ', too large'})"
                for other in self.choice.offers
                if other.type != self.choice.type
            ),
            (*notes, *template_note(self.choice.header, self.about.name)),
        )

    def carry_out(self, report: Report) -> StoredModel:
        """Fetch, repair where needed, publish."""
        name, kind = self.about.name, self.choice.type
        revision = self.about.revision
        with store.building(name, kind, report, revision, progress=_fetched) as (work, done):
            if done is not None:
                return done
            needs = [(hub_cache.root(), self.summary.download)]
            if self.needs_repair:
                needs.append((paths.models_dir(), self.summary.size))
            check_disk(needs)
            _write_wanted(work, self.repo, self.choice.files)
            pointers = [
                download.fetch(self.repo, file, report, head=head)
                for file, head in zip(self.choice.files, self.choice.heads, strict=True)
            ]
            if self.needs_repair:
                repaired = self._repaired(work, pointers, report)
                return store.publish(work, replace(self.about, keeper="mixcli").manifest(kind, (repaired,)))
            files = tuple(
                StoredFile(str(pointer), file.size, _sha256(pointer, file, report))
                for pointer, file in zip(pointers, self.choice.files, strict=True)
            )
            return store.publish(work, self.about.manifest(kind, files))

    def _repaired(self, work: Path, pointers: Sequence[Path], report: Report) -> StoredFile:
        target = work / f"{self.about.name.rpartition('/')[2]}-{self.choice.type}.gguf"
        convert_to(pointers[0], target, "COPY", report)
        if not self.keep_source:
            for pointer, file in zip(pointers, self.choice.files, strict=True):
                CachedRepo(self.repo.repo).forget(pointer, file.etag)
        return StoredFile(target.name, target.stat().st_size, sha256(target, report))


def _sha256(pointer: Path, file: RemoteFile, report: Report) -> str:
    return file.etag if len(file.etag) == 64 else sha256(pointer, report)


def _write_wanted(work: Path, repo: RemoteRepo, files: Sequence[RemoteFile]) -> None:
    """Write down what is wanted, for whoever waits and for whoever comes back offline."""
    wanted = {
        "repo": repo.repo,
        "commit": repo.commit,
        "files": [[file.name, file.size, file.etag] for file in files],
    }
    part = work / f"{WANTED}.part"
    part.write_text(json.dumps(wanted), "utf-8")
    part.replace(work / WANTED)


def progress_of(work: Path) -> list[FileCost]:
    """Return the files of a pull that was begun, by what is here of them; none where nothing is known."""
    try:
        wanted = json.loads((work / WANTED).read_text("utf-8"))
        cache = CachedRepo(wanted["repo"])
        return [
            FileCost(name, n_bytes, min(n_bytes, _size_of(cache.here(wanted["commit"], name, etag))))
            for name, n_bytes, etag in wanted["files"]
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetched(work: Path) -> tuple[float, float]:
    """Return how many bytes of a pull are here, whoever fetches them, and of how many."""
    costs = progress_of(work)
    return sum(cost.here for cost in costs), max(1, sum(cost.size for cost in costs))
