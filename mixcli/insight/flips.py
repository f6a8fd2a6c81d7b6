"""Compare the answers of quants of one model to the user's records: how many differ from the largest file's."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial

from mixcli.batch.batch import Backend
from mixcli.batch.job import Ask, TemplateJob
from mixcli.batch.journal import BatchJournal
from mixcli.batch.record import Record
from mixcli.batch.runner import BatchResult, BatchSettings, Tally, run
from mixcli.errors import MixcliError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody, Fields
from mixcli.insight.sequential import Decision, Interval, decide, interval_at, looks, mcnemar
from mixcli.system import paths
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.trimming import trim

MAX_RECORDS = 10_000  # of a larger input as many are drawn
KEPT = 256 << 20  # bytes of journals in the cache


@dataclass(frozen=True)
class AnsweringModel:
    """A model: its label, what identifies its weights, and how it is loaded for many requests."""

    label: str
    identity: str
    load: Callable[[], Backend]


@dataclass(frozen=True)
class FlipQuestion:
    """What is asked of every record, and when one stops: once the share of answers that differ is certainly at most, or above, `tolerance`.

    `gold` is the field with the right labels, None without any. `window` requests are in flight.
    """

    job: TemplateJob
    tolerance: float
    gold: str | None = None
    window: int = 32


@dataclass(frozen=True)
class GoldComparison:
    """How many of the records both models answered have the right label: of the largest file, of this one, and of one of them alone.

    `p_value` is McNemar's, times the number of looks.
    """

    n: int
    n_right_largest: int
    n_right: int
    n_only_largest: int
    n_only_this: int
    p_value: float


@dataclass(frozen=True)
class FlipReport:
    """How the answers of one file differ from those of the largest: `n_flips` of `n_records`, in an interval that holds at any look.

    `n_failed` records have no answer of one of the two.
    """

    label: str
    largest: str
    n_records: int
    n_flips: int
    n_failed: int
    share: Interval
    decision: Decision
    gold: GoldComparison | None = None

    def to_data(self) -> dict[str, object]:
        return asdict(self)


def sample(records: Iterator[Record], n: int = MAX_RECORDS) -> tuple[list[Record], int]:
    """Return n records of all in random order, the same ones every time, and how many cannot be asked about (Algorithm R, Vitter 1985)."""
    draw = random.Random(0)
    kept: list[Record] = []
    n_seen = n_bad = 0
    for record in records:
        if record.fault:
            n_bad += 1
            continue
        n_seen += 1
        if len(kept) < n:
            kept.append(record)
        elif (at := draw.randrange(n_seen)) < n:
            kept[at] = record
    draw.shuffle(kept)
    return kept, n_bad


def flips(
    models: Sequence[AnsweringModel], records: Sequence[Record], question: FlipQuestion
) -> list[FlipReport]:
    """Return a report on every model but the first, which is the largest.

    All models answer 64 records, then 128, 256 and so on, loaded one after the other; one that is decided is not asked again. Answers
    are kept in a journal in the cache, so that a rerun continues. Raises what a load raises, and SomeFailed where every answer fails.
    """
    largest, *others = models
    found: dict[str, FlipReport] = {}
    sizes = looks(len(records))
    for number, n in enumerate(sizes, 1):
        left = [one for one in others if one.label not in found or found[one.label].decision == "undecided"]
        if not left:
            break
        stage = f"round {number} of {len(sizes)}" if len(sizes) > 1 else "records"
        answers = partial(_answers, records=records[:n], question=question, stage=stage)
        first = answers(largest)
        for one in left:
            found[one.label] = _report(one, largest, records[:n], (first, answers(one)), question, len(sizes))
    return [found[one.label] for one in others]


def _report(
    one: AnsweringModel,
    largest: AnsweringModel,
    records: Sequence[Record],
    answers: tuple[Mapping[int, str], Mapping[int, str]],
    question: FlipQuestion,
    n_looks: int,
) -> FlipReport:
    first, second = answers
    both = [at for at in range(len(records)) if at in first and at in second]
    n_flips = sum(first[at] != second[at] for at in both)
    share = interval_at(n_flips, len(both), n_looks)
    return FlipReport(
        one.label,
        largest.label,
        len(both),
        n_flips,
        len(records) - len(both),
        share,
        decide(share, question.tolerance),
        _gold(question.gold, records, both, answers, n_looks) if question.gold else None,
    )


def _gold(
    name: str,
    records: Sequence[Record],
    both: Sequence[int],
    answers: tuple[Mapping[int, str], Mapping[int, str]],
    n_looks: int,
) -> GoldComparison:
    labels = {at: gold.strip() for at in both if (gold := records[at].find(name) or "").strip()}
    first, second = ({at for at, gold in labels.items() if _text(one[at]) == gold} for one in answers)
    alone = len(first - second), len(second - first)
    return GoldComparison(len(labels), len(first), len(second), *alone, min(1.0, n_looks * mcnemar(*alone)))


def _text(answer: str) -> str:
    return str(json.loads(answer)).strip()


class _NotKept(MixcliError):
    """The journal does not have an answer."""


def _answers(
    model: AnsweringModel, records: Sequence[Record], question: FlipQuestion, stage: str
) -> dict[int, str]:
    """Return a model's answers by the number of the record, as JSON; it is loaded only where the journal lacks one."""
    title = f"{model.label}, {stage}"
    kept = _asked(model, records, replace(question, window=1), _refuse, title)
    if len(kept) == len(records):
        return kept
    backend = model.load()
    try:
        found = _asked(model, records, question, backend, title)
    finally:
        backend.close()
    if not found:
        raise MixcliError(
            f"{model.label} answered none of {counted(len(records), 'record')}; try one with `mixcli run`"
        )
    return found


def _refuse(_body: ChatBody, _key: str) -> ChatCompletion:
    raise _NotKept("not answered yet")


def _asked(
    model: AnsweringModel, records: Sequence[Record], question: FlipQuestion, ask: Ask, title: str
) -> dict[int, str]:
    """Ask about the records of which the journal has no answer; of `_refuse` return only what the journal has."""
    answers: dict[int, str] = {}
    folder = paths.private(paths.cache_dir() / "comparisons")
    journal = BatchJournal(folder / f"{hashlib.sha256(model.identity.encode()).hexdigest()[:32]}.journal")
    settings = BatchSettings(
        model.identity, question.window, ordered=False, max_errors=len(records) if ask is _refuse else None
    )
    with closing(journal), console.progress(title) as bar:

        def look(done: BatchResult, tally: Tally) -> None:
            if not done.failed:
                answers[done.index] = json.dumps(done.line["result"], sort_keys=True)
            if ask is not _refuse:
                bar.update(tally.n_done, len(records), title)

        run(iter(records), question.job, ask, journal, settings, _ignore, look)
    trim(folder, "*.journal", KEPT, journal.path)
    return answers


def _ignore(_line: Fields) -> None:
    """Write nothing: answers are counted, not shown."""
