"""Assemble a batch from the command line: input, job, backend, journal and output."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from mixcli.batch.grading import Grading, calibration_path
from mixcli.batch.input_check import look_through
from mixcli.batch.job import BatchJob, RequestJob, TemplateJob
from mixcli.batch.journal import BatchJournal
from mixcli.batch.output import json_line, output
from mixcli.batch.output_paths import check_targets, checked_review
from mixcli.batch.progress import BatchProgress
from mixcli.batch.record import RecordSource
from mixcli.batch.records import open_records
from mixcli.batch.review import Review
from mixcli.batch.runner import BatchResult, BatchSettings, Tally, run
from mixcli.errors import MixcliError, UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.template import nearest
from mixcli.system import stdin
from mixcli.system.console import console
from mixcli.system.formatting import counted


class Backend(Protocol):
    """The backend of a batch: `identity` names the weights or the server, `width` is its number of engines."""

    @property
    def identity(self) -> str: ...
    @property
    def width(self) -> int: ...
    def __call__(self, body: ChatBody, key: str) -> ChatCompletion: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class BatchOptions:
    """The options of a batch; `settings.identity` is filled in once the backend is known.

    `for_prompts` are the options that were given and mean nothing to whole requests (OpenAI's batch files), `model` is that of a server,
    `read` are the other files that the command reads. `golds` has the columns of gold labels by the names of questions and fields,
    `calibrated` says which model the job's temperatures were fitted to, `review` where doubtful records are listed.
    """

    source: str
    out: Path | None
    journal: Path | None
    format: str | None
    golds: Mapping[str, str]
    settings: BatchSettings
    for_prompts: tuple[str, ...] = ()
    model: str | None = None
    read: tuple[Path, ...] = ()
    calibrated: str = ""
    review: Path | None = None


@dataclass(frozen=True)
class Report:
    """How a batch went."""

    tally: Tally
    sentence: str
    evaluation: Grading | None


def run_batch(
    order: BatchOptions,
    job: TemplateJob,
    backend: Callable[[], Backend],
    distant: Callable[[str], RecordSource] | None = None,
) -> Report:
    """Run a batch. What can be refused is refused before the model is loaded: a file is looked through first, and the targets are tried.

    `distant` reads inputs that are not local files (a Ray cluster does).
    """
    grading = Grading(order.golds, fits=not order.calibrated) if order.golds else None
    check_targets(order.source, order.out, order.journal, order.read)
    target = checked_review(order.review, order.source, order.out, order.journal) if order.review else None
    n_checked = None if distant is not None else _n_checked(order, job)
    with ExitStack() as stack:
        source, position, n_bytes = stack.enter_context(_opened(order, distant))
        chosen = _job(job, source, order)
        for note in source.notes:
            console.note(note)
        journal = None
        if order.journal:
            journal = BatchJournal(order.journal)
            stack.callback(journal.close)
        review = Review(stack.enter_context(output(target))) if target else None
        if n_checked == 0:
            stack.enter_context(output(order.out))
            return Report(Tally(), f"{_name(order.source)} has no records; nothing to do", grading)
        asked = backend()
        stack.callback(asked.close)
        _check_calibration(order.calibrated, asked.identity)
        write = stack.enter_context(output(order.out))
        progress = BatchProgress(stack.enter_context(console.progress("batch")), n_bytes)

        def look(done: BatchResult, tally: Tally) -> None:
            if grading is not None:
                grading.add(done)
            if review is not None:
                review.add(done.index, done.record, done.graded)
            progress.look(done, tally, position())

        identity = f"{asked.identity} requests" if source.format == "openai" else asked.identity
        settings = replace(order.settings, identity=identity, window=order.settings.window * asked.width)
        tally = run(
            source.records, chosen, asked, journal, settings, lambda line: write(json_line(line)), look
        )
        _check_whole(order.source, n_checked, tally)
        where = calibration_path(order.journal)
        notes = grading.finish(asked.identity, job.question, where) if grading is not None else []
        if review is not None:
            review.finish()
            notes.append(f"{counted(review.n, 'record')} to review in {target}")
    for note in notes:
        console.note(note)
    return Report(tally, progress.sentence(), grading)


def _check_whole(source: str, n_checked: int | None, tally: Tally) -> None:
    """Refuse to publish results of a file that has lost records since it was checked: another program has changed it."""
    if n_checked is not None and tally.n_done < n_checked:
        raise MixcliError(
            f"{_name(source)} was changed by another program while it was read: {counted(n_checked, 'record')} when it was checked, "
            f"{tally.n_done:,} now; rerun the command"
        )


def _check_calibration(fitted: str, identity: str) -> None:
    """Refuse temperatures that belong to another model."""
    if fitted and fitted != identity:
        raise UsageError(
            f"--calibration was fitted for {fitted}, and this run uses {identity}; fit another one with --eval, or remove it"
        )


@contextmanager
def checked_records(
    source: str, format_: str | None, job: TemplateJob, gold: str | None
) -> Iterator[RecordSource]:
    """Look a file through as `run_batch` does, and yield its records. UsageError for what every record would fail with, and for whole requests."""
    order = BatchOptions(source, None, None, format_, {"": gold} if gold else {}, BatchSettings(""))
    _n_checked(order, job)
    with _opened(order, None) as (found, _, _):
        if found.format == "openai":
            raise UsageError(f"{source} has whole requests of OpenAI's batch format; use a file of records")
        for note in found.notes:
            console.note(note)
        yield found


def _n_checked(order: BatchOptions, job: TemplateJob) -> int | None:
    """Check an input and count its records; None for one that cannot be read twice. UsageError for what every record would fail with."""
    if order.source != "-" and not Path(order.source).is_file():
        return None  # a FIFO: opening it twice may block forever
    with _stream(order.source) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return None
        begin = _position(stream)
        source = open_records(stream, order.source, order.format)
        survey = look_through(
            source,
            _job(job, source, order),
            order.golds,
            lambda: _position(stream),
            os.fstat(stream.fileno()).st_size,
        )
        os.lseek(stream.fileno(), begin, os.SEEK_SET)  # all readers share one stdin
    return survey.n


def _name(source: str) -> str:
    return "the input" if source == "-" else source


def _job(job: TemplateJob, source: RecordSource, order: BatchOptions) -> BatchJob:
    if source.format == "openai":
        if order.for_prompts:
            raise UsageError(
                f"the records are whole requests of OpenAI's batch format, which carry their own options; remove {', '.join(order.for_prompts)}"
            )
        return RequestJob(job.sampling, order.model)
    if source.columns is not None:
        job.check(source.columns)
        if source.doubt and job.takes_only(source.columns):
            raise UsageError(
                f"{source.doubt}; add a header line, or pass --format lines to send each line as text"
            )
        for gold in order.golds.values():
            if gold not in source.columns:
                raise UsageError(
                    f"--eval: no column {gold!r}; columns are {', '.join(source.columns)}{nearest(gold, source.columns)}"
                )
    return job


@contextmanager
def _opened(
    order: BatchOptions, distant: Callable[[str], RecordSource] | None
) -> Iterator[tuple[RecordSource, Callable[[], int], int | None]]:
    """Yield the input, how many bytes of it were read, and its size."""
    if distant is not None:
        yield distant(order.source), lambda: 0, None
        return
    with _stream(order.source) as stream:
        size = os.fstat(stream.fileno()).st_size if order.source != "-" else None
        with console.if_slow(f"waiting for the first records of {_name(order.source)}"):
            source = open_records(stream, order.source, order.format)
        yield source, lambda: _position(stream) if size else 0, size


@contextmanager
def _stream(source: str) -> Iterator[BinaryIO]:
    """Yield the bytes of an input. A pipe is left open (see stdin.stream); a file can be closed, no thread blocks in it."""
    if source == "-":
        if not stdin.is_piped():
            raise UsageError("- is stdin, but nothing is piped in; pass a file or pipe the records in")
        yield stdin.stream()
        return
    with console.if_slow(f"waiting for a program that writes to the pipe {source}"):
        file = Path(source).open("rb")  # noqa: SIM115
    is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    try:
        yield file
    finally:
        if is_regular:
            file.close()


def _position(stream: BinaryIO) -> int:
    return os.lseek(stream.fileno(), 0, os.SEEK_CUR)
