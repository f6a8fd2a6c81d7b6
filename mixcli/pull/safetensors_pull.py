"""Quantize a Hub checkpoint during the download, shard by shard.

Headers come by Range first, so that every byte of the result has its place before the first weight is here. While one shard is quantized
the next one arrives: the disk holds the result and at most two shards.
"""

import fnmatch
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.pull import download
from mixcli.pull.hub_client import RemoteFile, RemoteReader, RemoteRepo
from mixcli.pull.pull_plan import FileCost, PullPlan, check_disk
from mixcli.pull.quant_choice import Target, type_to_make
from mixcli.pull.retry import Cancelled
from mixcli.store import build_folder
from mixcli.store.about import About
from mixcli.store.hashing import Report, sha256
from mixcli.store.hub_cache import CachedRepo
from mixcli.store.manifest import StoredFile
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.formatting import format_bytes
from profiles.quant_choice import FileChoice
from quantize.conversion import Options, prepare_model
from quantize.plan import WritePlan
from quantize.source import ModelSource
from quantize.sources.checkpoint import INDEX, TOKENIZER_FILES, Checkpoint, Layout, open_checkpoint
from quantize.sources.model_source import model_source
from quantize.write_time import estimated_seconds
from quantize.writer import Supply, execute, identity_of

SMALL = (*(layout.value for layout in Layout), INDEX, *TOKENIZER_FILES, "tokenizer.model.v*")
MAX_SMALL = 1 << 27
FETCHED = "fetched"


def quantize_job(
    repo: RemoteRepo,
    about: About,
    file_type: str | None,
    keep_source: bool,
    target: Target,
    report: Report,
    *,
    imatrix: Path | None = None,
) -> "StreamJob":
    """Read what is small, the headers of the rest, and plan; without a file type take the one that suits the target best.

    Raises UsageError for a repository without a checkpoint, DoesNotFit where no quant fits and none was named.
    """
    small = [file for file in repo.files if any(fnmatch.fnmatchcase(file.name, name) for name in SMALL)]
    if not any(file.name in {layout.value for layout in Layout} for file in small):
        raise UsageError(
            f"{repo.repo} has no config.json and no params.json, so mixcli cannot quantize it; choose another repository"
        )
    for file in small:
        if file.size > MAX_SMALL:
            raise UsageError(
                f"{repo.repo}: {file.name} is {format_bytes(file.size)}, far too large for such a file; choose another repository"
            )
        download.fetch(repo, file, report)
    cache = CachedRepo(repo.repo)
    readers = {
        file.name: RemoteReader(repo, file, cache.here(repo.commit, file.name, file.etag))
        for file in repo.files
        if file.name.endswith(".safetensors") and "/" not in file.name
    }
    checkpoint = open_checkpoint(cache.snapshot(repo.commit), readers)
    model = replace(model_source(checkpoint), fingerprint=f"{repo.repo}@{repo.commit}")
    heads = {name: reader.head for name, reader in readers.items()}
    taken, planned = type_to_make(model, repo.repo, file_type, target)
    about = replace(about, keeper="mixcli")
    return StreamJob(
        about, repo, taken, checkpoint, model, heads, keep_source, planned, file_type is not None, imatrix
    )


@dataclass(frozen=True)
class StreamJob:
    """The pull of a checkpoint that is quantized on the way. `heads` are the beginnings of the shards that were read already.

    A `recipe` has the type of every tensor; `type` is then only the name of the result.
    """

    about: About
    repo: RemoteRepo
    type: str
    checkpoint: Checkpoint
    model: ModelSource
    heads: Mapping[str, bytes]
    keep_source: bool
    planned: FileChoice
    named: bool
    imatrix: Path | None = None
    needs_repair: bool = False
    recipe: Path | None = None

    @cached_property
    def plan(self) -> WritePlan:
        name = self.about.name.rpartition("/")[2]
        target = build_folder.work_folder(self.about.name, self.type) / f"{name}-{self.type}.gguf"
        output_type = None if self.recipe else self.type
        options = Options(output_type=output_type, imatrix=self.imatrix, recipe=self.recipe)
        return prepare_model(self.model, target, options)

    @cached_property
    def shards(self) -> tuple[RemoteFile, ...]:
        """Return the files that weights are read from; those with nothing but a vision part are not fetched."""
        read = {path for tensor in self.model.tensors for path in tensor.files}
        return tuple(self.repo.by_name[path.name] for path in self.checkpoint.files if path in read)

    @cached_property
    def summary(self) -> PullPlan:
        costs = tuple(
            FileCost(file.name, file.size, download.state(self.repo, file).here) for file in self.shards
        )
        missing = sum(cost.size - cost.here for cost in costs)
        n_bytes = self.plan.bytes_disk
        kept = missing if self.keep_source else min(missing, sum(sorted(cost.size for cost in costs)[-2:]))
        return PullPlan.of(
            self.about,
            self.type,
            self.planned,
            origin=f"{self.repo.repo} at {self.repo.commit[:12]}, quantized during the download",
            size=n_bytes,
            files=costs,
            download=missing,
            disk=n_bytes + kept,
            notes=self.plan.notes,
            seconds=estimated_seconds(self.plan),
            named=self.named,
        )

    def supply(self, work: Path, report: Report) -> Supply:
        """Return what downloads the shards for one pass over the weights and deletes them; `work` is the folder of the result."""
        return _Shards(self, work / FETCHED, report).supply

    def carry_out(self, report: Report) -> StoredModel:
        """Fetch and quantize, shard by shard; the same call resumes after a kill."""
        name, revision = self.about.name, self.about.revision
        with build_folder.building(name, self.type, report, revision) as (work, done):
            if done is not None:
                return done
            target = self.plan.target
            shards = _Shards(self, work / FETCHED, report)
            identity = identity_of(self.plan)
            if not build_folder.is_finished(target, identity):
                written = sum(part.stat().st_blocks * 512 for part in work.glob("*.gguf.part"))
                source = self.summary.disk - self.summary.size
                check_disk(
                    [(paths.models_dir(), self.plan.bytes_disk - written), (paths.hub_cache_dir(), source)]
                )
                execute(self.plan, lambda at: report(at.done, at.total, at.stage), shards.supply)
                build_folder.finish(target, identity)
            shards.clean_up()
            file = StoredFile(target.name, target.stat().st_size, sha256(target, report))
            return build_folder.publish(work, self.about.manifest(self.type, (file,)))


class _Shards:
    """Download the shards of a job in turn, the next one while one is processed, and delete those that it downloaded."""

    def __init__(self, job: StreamJob, record: Path, report: Report) -> None:
        self._job, self._record, self._report = job, record, report
        self._cache = CachedRepo(job.repo.repo)
        self._snapshot = self._cache.snapshot(job.repo.commit)
        self._stop = threading.Event()

    def supply(self, needed: Sequence[Path]) -> Iterator[Path]:
        """Yield each shard when it is there; when the next is asked for, the one before is deleted."""
        arriving = [self._job.repo.by_name[path.name] for path in needed]
        try:
            fetching = self._start(arriving[0]) if arriving else None
            for number, path in enumerate(needed):
                assert fetching is not None
                fetching.finish(self._report)
                fetching = self._start(arriving[number + 1]) if number + 1 < len(arriving) else None
                yield path
                self._let_go(path.name)
        finally:
            self._stop.set()

    def clean_up(self) -> None:
        """Remove the leftovers of a killed run."""
        for name in self._fetched():
            self._let_go(name)

    def _start(self, file: RemoteFile) -> "_Fetching":
        if not download.state(self._job.repo, file).is_complete and file.name not in self._fetched():
            with self._record.open("a", encoding="utf-8") as record:
                record.write(f"{file.name}\n")
        fetching = _Fetching(self._job.repo, file, self._job.heads.get(file.name, b""), self._stop)
        fetching.start()
        return fetching

    def _let_go(self, name: str) -> None:
        if not self._job.keep_source and name in self._fetched():
            self._cache.forget(self._snapshot / name, self._job.repo.by_name[name].etag)

    def _fetched(self) -> list[str]:
        """Return the names of the shards that this job downloaded, in this run or an earlier one; others belong to another program."""
        lines = self._record.read_text("utf-8").splitlines() if self._record.exists() else []
        return [name for name in lines if name in self._job.repo.by_name]


class _Fetching(threading.Thread):
    """One download in the background; a daemon, so that an interrupt need not wait for it."""

    def __init__(self, repo: RemoteRepo, file: RemoteFile, head: bytes, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._repo, self._file, self._head, self._end = repo, file, head, stop
        self._at: tuple[float, float, str] = (0, file.size, file.name)
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            download.fetch(self._repo, self._file, self._note, head=self._head, stop=self._end)
        except Cancelled:
            pass
        except BaseException as error:  # raised again where it is waited for
            self._error = error

    def _note(self, done: float, total: float, stage: str) -> None:
        self._at = (done, total, stage)
        if self._end.is_set():
            raise Cancelled

    def finish(self, report: Report) -> None:
        """Wait for the file and show how far it is; raises what went wrong."""
        while self.is_alive():
            self.join(0.2)
            report(*self._at)
        if self._error:
            raise self._error


__all__ = ["StreamJob", "quantize_job"]
