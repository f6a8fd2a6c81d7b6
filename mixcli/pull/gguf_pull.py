"""Pull a GGUF from a repository: choose the file, check that it fits, download it."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mixcli.errors import DoesNotFit, IntegrityError, UsageError
from mixcli.pull import download
from mixcli.pull.hub_client import RemoteFile, RemoteReader, RemoteRepo
from mixcli.pull.local_build import convert_to
from mixcli.pull.pull_plan import FileCost, PullPlan, check_disk
from mixcli.pull.quant_choice import Target, check_rate, how_it_runs, nothing_fits, shapes_of_types
from mixcli.store import build_folder, gguf_names
from mixcli.store.about import About
from mixcli.store.hashing import Report, sha256
from mixcli.store.headers import has_split_experts, model_header, shape_of, template_note
from mixcli.store.hub_cache import CachedRepo
from mixcli.store.manifest import StoredFile
from mixcli.store.preflight import check_header, family_note
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.formatting import format_bytes
from mixcli.system.json_cache import replace_text
from profiles.quality import BITS
from profiles.quant_choice import FileChoice, pick
from quantize.sources.gguf_header import GgufHeader

WANTED = "wanted.json"


@dataclass(frozen=True)
class Choice:
    """The files of one type in a repository, with the header that was read from them, and how all its types would do here.

    `named` says that the file or its type was named, not chosen.
    """

    type: str
    files: tuple[RemoteFile, ...]
    header: GgufHeader
    heads: tuple[bytes, ...]
    planned: FileChoice
    offered: frozenset[str]
    named: bool


def choose(
    repo: RemoteRepo, wanted: str | None, file: str | None, target: Target, *, quantizable: str = ""
) -> Choice:
    """Find the GGUF that is meant: by its type, by its file's name, or the one that suits the target best.

    `quantizable` names the model or repository that has the same weights in safetensors: the types that could be made of it are planned too.
    Raises UsageError for a type that is not there, DoesNotFit when nothing fits and no type was named, IntegrityError for a file that is not a
    sound GGUF.
    """
    everything = _by_type(repo, None)
    groups = {name: group for name, group in _by_type(repo, file).items() if wanted in {None, name}}
    if not groups:
        have = ", ".join(everything) or "no GGUF files"
        can_be_made = quantizable and file is None and wanted in BITS
        how = f"; {_to_make(quantizable, str(wanted))}" if can_be_made else ""
        raise UsageError(f"{repo.repo} has no {file or wanted}; it has {have}{how}")
    smallest = min(groups, key=lambda name: _size(groups[name]))
    read = {smallest: _read(repo, groups[smallest])}
    is_open = wanted is None and file is None
    sizes: dict[str, int | None] = dict.fromkeys(BITS if is_open and quantizable else ())
    sizes |= {name: _size(group) for name, group in everything.items()}
    shapes = shapes_of_types(shape_of(read[smallest][0]), sizes)
    # what was named needs no measurement of its neighbors' types
    target = target.settled(shapes if is_open else {smallest: shape_of(read[smallest][0])})
    while True:  # until the header of the chosen file was read, at the latest when all were
        shapes |= {name: shape_of(header) for name, (header, _) in read.items()}
        planned = target.choose(shapes, groups)
        chosen = planned.chosen.type if is_open and planned.chosen else smallest
        if is_open:
            check_rate(planned, repo.repo)
        if is_open and planned.chosen is None:
            if best := pick(planned.rows, planned.rule)[0]:
                raise DoesNotFit(
                    f"no file of {repo.repo} fits {target.where}, but {best.type} would ({format_bytes(best.size)}); {_to_make(quantizable, best.type)}"
                )
            n_bytes, anyway = _size(groups[smallest]), f"{repo.repo}:{smallest}"
            raise nothing_fits(repo.repo, smallest, n_bytes, planned.machine, target, anyway)
        if chosen in read:
            return Choice(chosen, groups[chosen], *read[chosen], planned, frozenset(everything), not is_open)
        read[chosen] = _read(repo, groups[chosen])


def _to_make(quantizable: str, file_type: str) -> str:
    """Return the command that quantizes a type from safetensors."""
    return f"quantize it from the safetensors in one pass: mixcli pull {quantizable} --quant {file_type}"


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
    """Read the header of a model by Range requests, using downloaded data where possible."""
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
            continue  # the downloaded part may be damaged; the download will find out
        return header, tuple(reader.head for reader in readers)
    raise AssertionError("the second time returns or raises")


def _size(group: Sequence[RemoteFile]) -> int:
    return sum(file.size for file in group)


@dataclass(frozen=True)
class GgufJob:
    """The pull of one GGUF, which may have several parts; `quantizable` names what has the same model in safetensors, if anything."""

    about: About
    repo: RemoteRepo
    choice: Choice
    keep_source: bool = False
    quantizable: str = ""

    @cached_property
    def needs_repair(self) -> bool:
        return has_split_experts(self.choice.header)

    @cached_property
    def summary(self) -> PullPlan:
        costs = tuple(
            FileCost(file.name, file.size, download.state(self.repo, file).here) for file in self.choice.files
        )
        missing = sum(cost.size - cost.here for cost in costs)
        notes = (
            ["its experts are stored separately, as in December 2023, and will be merged without loss"]
            if self.needs_repair
            else []
        )
        best = self.choice.planned.best
        if self.quantizable and best is not None and best.type not in self.choice.offered:
            notes.append(
                f"{best.type} would suit this machine better ({how_it_runs(best)}) but is not in this repository; "
                f"{_to_make(self.quantizable, best.type)}"
            )
        size = _size(self.choice.files)
        return PullPlan.of(
            self.about,
            self.choice.type,
            self.choice.planned,
            origin=f"{self.repo.repo} at {self.repo.commit[:12]}",
            size=size,
            files=costs,
            download=missing,
            disk=missing + (size if self.needs_repair else 0),
            notes=(
                *notes,
                *template_note(self.choice.header, self.about.name),
                *family_note(self.choice.header),
            ),
            named=self.choice.named,
            offered=self.choice.offered,
        )

    def carry_out(self, report: Report) -> StoredModel:
        """Fetch, repair where needed, publish."""
        name, kind = self.about.name, self.choice.type
        revision = self.about.revision
        with build_folder.building(name, kind, report, revision, progress=_fetched) as (work, done):
            if done is not None:
                return done
            needs = [(paths.hub_cache_dir(), self.summary.download)]
            if self.needs_repair:
                needs.append((paths.models_dir(), self.summary.size))
            check_disk(needs)
            brought = _write_wanted(work, self.repo, self.choice.files)
            pointers = [
                download.fetch(self.repo, file, report, head=head)
                for file, head in zip(self.choice.files, self.choice.heads, strict=True)
            ]
            if self.needs_repair:
                repaired = self._repaired(work, pointers, brought, report)
                return build_folder.publish(
                    work, replace(self.about, keeper="mixcli").manifest(kind, (repaired,))
                )
            files = tuple(
                StoredFile(str(pointer), file.size, _sha256(pointer, file, report))
                for pointer, file in zip(pointers, self.choice.files, strict=True)
            )
            return build_folder.publish(work, self.about.manifest(kind, files))

    def _repaired(
        self, work: Path, pointers: Sequence[Path], brought: Collection[str], report: Report
    ) -> StoredFile:
        """Merge the experts, and let go what this pull has brought; what was there before belongs to another program."""
        target = work / f"{self.about.name.rpartition('/')[2]}-{self.choice.type}.gguf"
        convert_to(pointers[0], target, "COPY", report)
        if not self.keep_source:
            for pointer, file in zip(pointers, self.choice.files, strict=True):
                if file.name in brought:
                    CachedRepo(self.repo.repo).forget(pointer, file.etag)
        return StoredFile(target.name, target.stat().st_size, sha256(target, report))


def _sha256(pointer: Path, file: RemoteFile, report: Report) -> str:
    return file.etag if len(file.etag) == 64 else sha256(pointer, report)


def _write_wanted(work: Path, repo: RemoteRepo, files: Sequence[RemoteFile]) -> set[str]:
    """Record the requested files, for waiting processes and for later offline use; return those that are not here yet, or were brought by an earlier run."""
    brought = _brought_before(work, repo)
    brought |= {file.name for file in files if not download.state(repo, file).is_complete}
    wanted = {
        "repo": repo.repo,
        "commit": repo.commit,
        "files": [[file.name, file.size, file.etag] for file in files],
        "brought": sorted(brought),
    }
    replace_text(work / WANTED, json.dumps(wanted))
    return brought


def _brought_before(work: Path, repo: RemoteRepo) -> set[str]:
    """Return the files that a run which was interrupted has brought of the same commit, or was about to."""
    try:
        wanted = json.loads((work / WANTED).read_text("utf-8"))
        return set(map(str, wanted["brought"])) if wanted["commit"] == repo.commit else set()
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def progress_of(work: Path) -> list[FileCost]:
    """Return the files of a started pull with their downloaded bytes; empty if nothing is known."""
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
    """Return how many bytes of a pull are here, by any process, and of how many."""
    costs = progress_of(work)
    return sum(cost.here for cost in costs), max(1, sum(cost.size for cost in costs))
