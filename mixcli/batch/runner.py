"""Run a batch: skip what the journal has, request the rest, and write all results in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mixcli.batch.job import Ask, BatchJob
from mixcli.batch.journal import BatchJournal, key_of
from mixcli.batch.record import Record
from mixcli.batch.window import Pool
from mixcli.errors import MixcliError, ModelDied, NotReachable, SomeFailed, UsageError
from mixcli.host.protocol.messages import Fields
from mixcli.system.formatting import counted

FATAL = (ModelDied, NotReachable)  # no fault of a record: every other one would fail the same way
ALIKE = 32  # records that fail with the same words before any has worked: then no more are asked
AHEAD = 4  # windows of records that may wait behind a slow one


@dataclass(frozen=True)
class BatchResult:
    """One record's end: its line, why it failed, and whether it was known from an earlier run or computed now."""

    index: int
    record: Record
    line: Fields
    error: str | None = None
    known: bool = False

    @property
    def failed(self) -> bool:
        return self.error is not None


@dataclass(frozen=True)
class BatchSettings:
    """How a batch is run: `identity` names the model or server (part of every key), `window` requests are in flight at a time."""

    identity: str
    window: int = 32
    ordered: bool = True
    max_errors: int | None = None


@dataclass(frozen=True)
class Tally:
    """How many records are done, of these failed, and known from an earlier run."""

    n_done: int = 0
    n_failed: int = 0
    n_known: int = 0

    def plus(self, done: BatchResult) -> "Tally":
        return Tally(self.n_done + 1, self.n_failed + done.failed, self.n_known + done.known)


Look = Callable[[BatchResult, Tally], None]


def run(
    records: Iterator[Record],
    job: BatchJob,
    ask: Ask,
    journal: BatchJournal | None,
    settings: BatchSettings,
    write: Callable[[Fields], object],
    look: Look,
) -> Tally:
    """Run a batch; `write` gets lines in order of the input (or of completion), `look` every end as it comes.

    Raises SomeFailed when more than `max_errors` records failed, or, without `max_errors`, when the first ALIKE records all fail
    with the same error: then the cause is the address, the model or an option. Finished results are in the journal.
    """
    ahead = settings.window * AHEAD
    pool: Pool[tuple[int, Record], tuple[BatchResult, str, Fields | None]] = Pool(
        lambda task: _one(*task, job, ask, journal, settings.identity), settings.window, ahead
    )
    tally = Tally()
    waiting: dict[int, BatchResult] = {}
    next_index = 0
    alike: list[str] | None = [] if settings.max_errors is None else None
    for done, key, outcome in pool.results(enumerate(records)):
        if journal is not None and outcome is not None:
            journal.append(key, done.index, outcome)
        tally = tally.plus(done)
        look(done, tally)
        if settings.ordered:
            waiting[done.index] = done
        else:
            write(done.line)
            pool.release()
        while next_index in waiting:
            write(waiting.pop(next_index).line)
            next_index += 1
            pool.release()
        if alike is not None and not done.record.fault:
            alike = _alike(alike, done)
        if settings.max_errors is not None and tally.n_failed > settings.max_errors:
            raise SomeFailed(
                f"{counted(tally.n_failed, 'record')} failed, more than --max-errors {settings.max_errors}"
            )
    return tally


def _alike(words: list[str], done: BatchResult) -> list[str] | None:
    """Note what a request failed with; None once one has worked or failed otherwise. Raises SomeFailed when there are too many."""
    if done.error is None or (words and words[0] != done.error):
        return None
    words = [*words, done.error]
    if len(words) == ALIKE:
        raise SomeFailed(
            f"the first {ALIKE} records all failed with the same error, so the batch stopped: {words[0]}"
        )
    return words


def _one(
    index: int, record: Record, job: BatchJob, ask: Ask, journal: BatchJournal | None, identity: str
) -> tuple[BatchResult, str, Fields | None]:
    """Process one record; return it with its key, and the outcome if it was computed now."""
    key = key_of(identity, {"line": index})
    try:
        if record.fault:
            raise UsageError(record.fault)
        body = job.body(record)
        key = key_of(identity, body.to_json())
        known = journal.take(key, index) if journal else None
        if known is not None:
            return BatchResult(index, record, job.line(record, key, known), known=True), key, None
        outcome = job.outcome(ask(body, f"{key}-{index}"))
    except FATAL:
        raise
    except MixcliError as error:
        return BatchResult(index, record, job.failure(record, key, error), str(error)), key, None
    return BatchResult(index, record, job.line(record, key, outcome)), key, outcome
