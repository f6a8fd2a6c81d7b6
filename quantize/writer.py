"""Write a GGUF in one pass: read rows, quantize them, write them at their offsets.

The result is cut into slabs of whole rows, about a million weights each. A pool of threads takes slab after slab; the
quantizers release Python's lock. Every finished slab is named in the journal, so that a killed write resumes, whatever
the size of the model. At the end the files are flushed and renamed into place.
"""

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from quantize import ggml
from quantize.encoder import Encoder
from quantize.errors import CorruptFile, NoSpace, QuantizeError
from quantize.output_target import output_target, refuse_sources
from quantize.parallel import in_parallel
from quantize.part_file import PartFile
from quantize.plan import WritePlan
from quantize.sources.input_file import states_of
from quantize.wording import DISK_FULL, disk_full
from quantize.write_journal import WriteJournal


@dataclass(frozen=True)
class Progress:
    """The progress of a write: bytes done and in total, and the current stage."""

    done: int
    total: int
    stage: str


@dataclass(frozen=True)
class WriteReport:
    """What was written: the files, their bytes, the bytes that an earlier run had finished, and the seconds of this one.

    `started_over` says that work of an earlier run was thrown away because its source or options were others.
    """

    paths: tuple[Path, ...]
    n_bytes: int
    n_bytes_resumed: int
    seconds: float
    started_over: bool


# Brings source files: takes those that are needed, in order, and gives each when it is there; when the next is asked for, the work on
# the one before is finished and on the disk, and it may go
Supply = Callable[[Sequence[Path]], Iterator[Path]]


def execute(
    plan: WritePlan, progress: Callable[[Progress], None] | None = None, supply: Supply | None = None
) -> WriteReport:
    """Carry out what `plan_write` planned; with `supply`, source file by source file. Its errors pass through, the work is kept."""
    started = time.monotonic()
    parts = tuple(_part(file.path) for file in plan.files)
    for file in plan.files:
        output_target(file.path)
    check_own_files(plan, [path for path, _ in plan.sources])
    _check_disk(plan, parts)
    meter = _Meter(sum(slab.n_bytes for slab in plan.slabs), progress)
    try:
        with WriteJournal(_part(plan.target, ".journal"), identity_of(plan), parts) as journal:
            try:
                resumed = _fill(plan, parts, journal, meter, supply)
                if supply is None:
                    _check_sources(plan)
                _publish(plan, parts)
            except QuantizeError:  # this source can never become this result
                for part in parts:
                    part.unlink(missing_ok=True)
                journal.remove()
                raise
            journal.remove()
    except OSError as error:
        raise _explain(error, plan, meter) from error
    paths = tuple(file.path for file in plan.files)
    return WriteReport(paths, plan.bytes_disk, resumed, time.monotonic() - started, journal.started_over)


def check_own_files(plan: WritePlan, sources: Sequence[Path]) -> None:
    """Raise BadTarget where a file of the result, finished or not, has the name of a source: it would be overwritten before it is read."""
    unfinished = (_part(file.path) for file in plan.files)
    for path in (*(file.path for file in plan.files), *unfinished, _part(plan.target, ".journal")):
        refuse_sources(path, sources)


def _fill(
    plan: WritePlan, parts: Sequence[Path], journal: WriteJournal, meter: "_Meter", supply: Supply | None
) -> int:
    """Write every slab that is not yet there, and flush; returns the bytes that were."""
    _take_back(plan, parts, journal)
    with ExitStack() as stack:
        files = [
            stack.enter_context(PartFile(part, file)) for part, file in zip(parts, plan.files, strict=True)
        ]
        finished = _verify(plan, files, journal)
        resumed = sum(plan.slabs[number].n_bytes for number in finished)
        if journal.started_over:
            meter.add(0, "starting over: source or options changed")
        elif resumed:
            meter.add(resumed, "resuming")
        encode = Encoder(plan)

        def work(number: int) -> int:
            slab = plan.slabs[number]
            data = encode(slab)
            files[slab.file].write(slab.offset, data)
            return zlib.crc32(data)

        todo = (number for number in range(len(plan.slabs)) if number not in finished)
        for numbers in _rounds(plan, todo, supply):
            for number, checksum in in_parallel(work, numbers, plan.n_workers):
                journal.add(number, checksum)
                meter.add(plan.slabs[number].n_bytes, "quantizing")
            if supply:  # the source may be gone from here on
                for file in files:
                    file.flush()
                journal.flush()
        meter.add(0, "flushing")
        for file in files:
            file.finish()
    return resumed


def _rounds(plan: WritePlan, todo: Iterable[int], supply: Supply | None) -> Iterator[Iterable[int]]:
    """Yield the slabs that can be worked on, all at once or by the source file that they are read from."""
    if supply is None:
        yield todo
        return
    by_file: dict[Path | None, list[int]] = {}
    for number in todo:
        slab = plan.slabs[number]
        file = slab.tensor.source.file
        by_file.setdefault(file(slab.start) if file else None, []).append(number)
    yield by_file.pop(None, [])
    for path in supply(sorted(path for path in by_file if path)):
        yield by_file[path]


class _Meter:
    """Count the finished bytes and report progress."""

    def __init__(self, total: int, progress: Callable[[Progress], None] | None) -> None:
        self.done = 0
        self.total = total
        self._progress = progress

    def add(self, n_bytes: int, stage: str) -> None:
        self.done += n_bytes
        if self._progress:
            self._progress(Progress(self.done, self.total, stage))


def identity_of(plan: WritePlan) -> str:
    """Name the exact bytes that this plan will write."""
    digest = hashlib.sha256()
    for part in (
        plan.fingerprint,
        ggml.version(),
        plan.imatrix.digest if plan.imatrix else "",
        len(plan.slabs),
    ):
        digest.update(f"{part}\n".encode())
    for file in plan.files:
        digest.update(file.header)
    return digest.hexdigest()


def _part(path: Path, suffix: str = ".part") -> Path:
    return path.with_name(path.name + suffix)


def _take_back(plan: WritePlan, parts: Sequence[Path], journal: WriteJournal) -> None:
    """Undo a publication that was killed before its journal was removed."""
    if len(journal.done) == len(plan.slabs):
        for part, file in zip(parts, plan.files, strict=True):
            if not part.exists() and file.path.is_file() and file.path.stat().st_size == file.size:
                file.path.replace(part)


def _verify(plan: WritePlan, files: Sequence[PartFile], journal: WriteJournal) -> set[int]:
    """Compare what the journal names with the bytes on disk; returns the slabs that need no more work."""

    def checksum(number: int) -> int:
        slab = plan.slabs[number]
        return zlib.crc32(files[slab.file].read(slab.offset, slab.n_bytes))

    numbers = [number for number in journal.done if number < len(plan.slabs)]
    found = dict(in_parallel(checksum, numbers, plan.n_workers))
    finished = {number for number, crc in found.items() if crc == journal.done[number]}
    if len(finished) < len(journal.done):
        journal.forget(journal.done.keys() - finished)
    return finished


def _check_disk(plan: WritePlan, parts: Sequence[Path]) -> None:
    folder = plan.target.absolute().parent
    have = shutil.disk_usage(folder).free + sum(
        part.stat().st_blocks * 512 for part in parts if part.is_file()
    )
    if have < plan.bytes_disk:
        raise NoSpace(
            f"{plan.target} needs {_gib(plan.bytes_disk)}, but the disk has {_gib(have)} free; "
            "free some space, choose a smaller quant, or write to another disk"
        )


def _check_sources(plan: WritePlan) -> None:
    """Refuse to publish what was read from a source that changed meanwhile: half of one model and half of another."""
    now = states_of(path for path, _ in plan.sources)
    if changed := next(
        (path for (path, state), one in zip(plan.sources, now, strict=True) if (path, state) != one), None
    ):
        raise CorruptFile(
            f"{changed} changed during the read, so the result was discarded; rerun the command"
        )


def _publish(plan: WritePlan, parts: Sequence[Path]) -> None:
    """Rename the finished files into place; the first shard, which names the others, comes last."""
    for part, file in reversed(list(zip(parts, plan.files, strict=True))):
        part.replace(file.path)
    fd = os.open(plan.target.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _explain(error: OSError, plan: WritePlan, meter: _Meter) -> QuantizeError:
    if error.errno in DISK_FULL:
        return NoSpace(disk_full(plan.target.parent, _gib(meter.total - meter.done)))
    return QuantizeError(
        f"{plan.target} cannot be created, {error.filename or plan.target}: {error.strerror or error}"
    )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.2f} GiB" if n_bytes >= 1 << 27 else f"{n_bytes / (1 << 20):.2f} MiB"


__all__ = ["Progress", "WriteReport", "check_own_files", "execute", "identity_of"]
