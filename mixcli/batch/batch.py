"""Assemble a batch from the command line: input, job, backend, journal and output."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from mixcli.batch.evaluation import Evaluation
from mixcli.batch.input_check import look_through
from mixcli.batch.job import BatchJob, RequestJob, TemplateJob
from mixcli.batch.journal import BatchJournal
from mixcli.batch.output import json_line, output
from mixcli.batch.output_paths import check_targets
from mixcli.batch.progress import BatchProgress
from mixcli.batch.record import RecordSource
from mixcli.batch.records import open_records
from mixcli.batch.runner import BatchResult, BatchSettings, Tally, run
from mixcli.errors import UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.template import nearest
from mixcli.system import stdin
from mixcli.system.console import console


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
    `read` are the other files that the command reads.
    """

    source: str
    out: Path | None
    journal: Path | None
    format: str | None
    gold: str | None
    settings: BatchSettings
    for_prompts: tuple[str, ...] = ()
    model: str | None = None
    read: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Report:
    """How a batch went."""

    tally: Tally
    sentence: str
    evaluation: Evaluation | None


def run_batch(
    order: BatchOptions,
    job: TemplateJob,
    backend: Callable[[], Backend],
    distant: Callable[[str], RecordSource] | None = None,
) -> Report:
    """Run a batch. What can be refused is refused before the model is loaded: a file is looked through first, and the targets are tried.

    `distant` reads inputs that are not local files (a Ray cluster does).
    """
    evaluation = Evaluation() if order.gold else None
    check_targets(order.source, order.out, order.journal, order.read)
    is_empty = distant is None and _is_empty(order, job)
    with ExitStack() as stack:
        source, position, n_bytes = stack.enter_context(_opened(order, distant))
        chosen = _job(job, source, order)
        for note in source.notes:
            console.note(note)
        journal = None
        if order.journal:
            journal = BatchJournal(order.journal)
            stack.callback(journal.close)
        if is_empty:
            stack.enter_context(output(order.out))
            return Report(Tally(), f"{_name(order.source)} has no records; nothing to do", evaluation)
        asked = backend()
        stack.callback(asked.close)
        write = stack.enter_context(output(order.out))
        progress = BatchProgress(stack.enter_context(console.progress("batch")), n_bytes)

        def look(done: BatchResult, tally: Tally) -> None:
            if evaluation is not None and order.gold:
                evaluation.add(done.record.fields.get(order.gold), done.line)
            progress.look(done, tally, position())

        identity = f"{asked.identity} requests" if source.format == "openai" else asked.identity
        settings = replace(order.settings, identity=identity, window=order.settings.window * asked.width)
        tally = run(
            source.records, chosen, asked, journal, settings, lambda line: write(json_line(line)), look
        )
    return Report(tally, progress.sentence(), evaluation)


@contextmanager
def checked_records(
    source: str, format_: str | None, job: TemplateJob, gold: str | None
) -> Iterator[RecordSource]:
    """Look a file through as `run_batch` does, and yield its records. UsageError for what every record would fail with, and for whole requests."""
    order = BatchOptions(source, None, None, format_, gold, BatchSettings(""))
    _is_empty(order, job)
    with _opened(order, None) as (found, _, _):
        if found.format == "openai":
            raise UsageError(f"{source} has whole requests of OpenAI's batch format; use a file of records")
        for note in found.notes:
            console.note(note)
        yield found


def _is_empty(order: BatchOptions, job: TemplateJob) -> bool:
    """Look through an input that can be read twice; shows whether it has no records. UsageError for what every record would fail with."""
    if order.source != "-" and not Path(order.source).is_file():
        return False  # a pipe with a name: who opens it twice may wait forever
    with _stream(order.source) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return False
        begin = _position(stream)
        source = open_records(stream, order.source, order.format)
        survey = look_through(
            source,
            _job(job, source, order),
            order.gold,
            lambda: _position(stream),
            os.fstat(stream.fileno()).st_size,
        )
        os.lseek(stream.fileno(), begin, os.SEEK_SET)  # stdin is one for all that read it
    return not survey.n


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
        if order.gold and order.gold not in source.columns:
            raise UsageError(
                f"--eval: no column {order.gold!r}; columns are {', '.join(source.columns)}{nearest(order.gold, source.columns)}"
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
            raise UsageError("- means stdin, but nothing is piped in; name a file or pipe the records in")
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
