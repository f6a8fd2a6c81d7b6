"""Run a batch: skip what the journal has, request the rest, and write all results in order."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mixcli.batch.graded import Graded
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
    """One record's end: its line, why it or one of its questions failed, and whether it was known from an earlier run or computed now."""

    index: int
    record: Record
    line: Fields
    error: str | None = None
    known: bool = False
    graded: Mapping[str, Graded] = field(default_factory=dict)

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


Computed = list[tuple[str, Fields]]  # keys and outcomes that were not known before
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
    pool: Pool[tuple[int, Record], tuple[BatchResult, Computed]] = Pool(
        lambda task: _one(*task, job, ask, journal, settings.identity), settings.window, ahead
    )
    tally = Tally()
    waiting: dict[int, BatchResult] = {}
    next_index = 0
    alike: list[str] | None = [] if settings.max_errors is None else None
    for done, computed in pool.results(enumerate(records)):
        if journal is not None:
            for key, outcome in computed:
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
                f"{counted(tally.n_failed, 'record')} failed, more than --max-errors {settings.max_errors}; "
                "correct them or raise the limit, and rerun the command"
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
) -> tuple[BatchResult, Computed]:
    """Process one record; return it with the keys and outcomes that were computed now."""
    keys = [key_of(identity, {"line": index})]
    computed: Computed = []
    try:
        if record.fault:
            raise UsageError(record.fault)
        bodies = job.bodies(record)
        keys = [key_of(identity, body.to_json()) for body in bodies]
        known = [journal.take(key, index) if journal else None for key in keys]
        missing = [number for number, one in enumerate(known) if one is None]

        def answered(number: int) -> dict[str, object]:
            return job.outcome(number, ask(bodies[number], f"{keys[number]}-{index}"))

        asked = dict(zip(missing, _together(answered, missing), strict=True))
        outcomes = [asked[number] if one is None else one for number, one in enumerate(known)]
        computed += [(keys[number], one) for number, one in asked.items() if not isinstance(one, MixcliError)]
        grades = job.graded(outcomes)
        if failed := next((one for one in outcomes if isinstance(one, MixcliError)), None):
            line = job.failure(record, keys[0], failed, outcomes)
            return BatchResult(index, record, line, str(failed), graded=grades), computed
        line = job.line(record, keys[0], [one for one in outcomes if not isinstance(one, MixcliError)])
    except FATAL:
        raise
    except MixcliError as error:
        return BatchResult(index, record, job.failure(record, keys[0], error), str(error)), computed
    return BatchResult(index, record, line, known=not missing, graded=grades), computed


def _together(
    answered: Callable[[int], dict[str, object]], numbers: Sequence[int]
) -> list[dict[str, object] | MixcliError]:
    """Ask the questions of one record at the same time, so that the engine computes what they begin with once; in their order.

    The threads do not outlive the process: one that is interrupted does not wait for answers.
    """
    found: dict[int, dict[str, object] | BaseException] = {}

    def one(number: int) -> None:
        try:
            found[number] = answered(number)
        except BaseException as error:
            found[number] = error

    threads = [
        threading.Thread(target=one, args=(number,), name=f"question-{number}", daemon=True)
        for number in numbers[1:]
    ]
    for thread in threads:
        thread.start()
    for number in numbers[:1]:
        one(number)
    for thread in threads:
        thread.join()
    outcomes: list[dict[str, object] | MixcliError] = []
    for number in numbers:
        outcome = found[number]
        if isinstance(outcome, BaseException) and (
            isinstance(outcome, FATAL) or not isinstance(outcome, MixcliError)
        ):
            raise outcome
        outcomes.append(outcome)
    return outcomes
