"""Check a whole input file before the first request, so that an error in every record is reported once.

Malformed structure, fields that no record has, gold labels that no answer can have: all of that is found before a
model is loaded. It takes as long as reading the file, in constant memory. A pipe cannot be read twice; there each record reports its own error.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mixcli.batch.job import TEXT, BatchJob, TemplateJob, warn_of_braces
from mixcli.batch.record import Record, RecordSource
from mixcli.errors import MixcliError, UsageError
from mixcli.request.choice_labels import folded
from mixcli.request.template import nearest
from mixcli.system.console import console
from mixcli.system.formatting import counted

MAX_LABELS = 200  # gold labels that --choice lacks, told apart
SHOWN = 5


@dataclass
class Survey:
    """Counts over the records: how many there are, how many are invalid, and which of the named fields occur."""

    n: int = 0
    n_bad: int = 0
    first_bad: str = ""
    seen: set[str] = field(default_factory=set)
    names: dict[str, None] = field(default_factory=dict)
    only: dict[str, str | int] = field(
        default_factory=dict
    )  # what {{ text }} meant, and the first record where it did
    strange: Counter[str] = field(default_factory=Counter)
    n_gold: int = 0
    ids: set[int] = field(default_factory=set)  # hashes of them
    n_twice: int = 0
    first_twice: str = ""
    n_empty: int = 0  # records whose {{ text }} is empty
    first_empty: str | int = ""
    n_unusable: int = 0
    first_unusable: str = ""

    def add(
        self, record: Record, job: BatchJob, wanted: Sequence[str], gold: str | None, labels: Sequence[str]
    ) -> None:
        """Count one record."""
        self.n += 1
        try:
            if record.fault:
                raise UsageError(record.fault)
            job.bodies(record)
            self._see_text(record, job)
        except MixcliError as error:
            self.n_bad += 1
            self.first_bad = self.first_bad or f"record {record.id}: {error}"
        self._see_id(record)
        only = job.only_field(record) if isinstance(job, TemplateJob) and not record.fault else None
        only = TEXT if only is None and TEXT in record.fields else only
        if only is not None and len(self.only) < MAX_LABELS:
            self.only.setdefault(only, record.id)
        for name in wanted:
            if record.find(name) is not None:
                self.seen.add(name)
        if len(self.names) < MAX_LABELS:
            self.names.update(dict.fromkeys(record.fields))
        label = (record.find(gold) or "").strip() if gold else ""
        self.n_gold += bool(label)
        if (
            label
            and labels
            and label not in labels
            and (label in self.strange or len(self.strange) < MAX_LABELS)
        ):
            self.strange[label] += 1

    def _see_text(self, record: Record, job: BatchJob) -> None:
        text = job.text_of(record) if isinstance(job, TemplateJob) else None
        if text is not None and not text.strip():
            self.n_empty += 1
            self.first_empty = self.first_empty or record.id

    def _see_id(self, record: Record) -> None:
        if record.fault:
            return
        name = "custom_id" if "custom_id" in record.fields else "id"
        if record.fields.get(name, str(record.id)) != str(record.id):
            self.n_unusable += 1
            self.first_unusable = (
                self.first_unusable or f"record {self.n}: {record.fields[name][:40] or 'null'}"
            )
        known = hash(str(record.id))
        if known in self.ids:
            self.n_twice += 1
            self.first_twice = self.first_twice or f"record {self.n}: {str(record.id)[:40]}"
        self.ids.add(known)


def look_through(
    source: RecordSource,
    job: BatchJob,
    golds: Mapping[str, str],
    position: Callable[[], int],
    n_bytes: int,
) -> Survey:
    """Read all records. Raises UsageError for what would go wrong with all of them; warns of gold labels that no answer can have.

    `golds` has the columns of gold labels by the names of questions and fields; those of --choice have an empty name.
    """
    survey = Survey()
    gold = golds.get("")
    keep = job.keep if isinstance(job, TemplateJob) else ()
    labels = job.form.labels if isinstance(job, TemplateJob) else ()
    wanted = [*keep, *golds.values()]
    with console.progress("checking the input") as bar:
        for record in source.records:
            survey.add(record, job, [name for name in wanted if name not in survey.seen], gold, labels)
            if not survey.n % 1000:
                bar.update(position(), n_bytes, f"checking the input, {counted(survey.n, 'record')}")
    if survey.n and survey.n_bad == survey.n:
        which = f"all {survey.n:,} records are invalid; first error: " if survey.n > 1 else ""
        raise UsageError(f"{which}{survey.first_bad}")
    if len(survey.only) > 1:
        named = " and ".join(f"{name} (record {first})" for name, first in list(survey.only.items())[:SHOWN])
        raise UsageError(f"{{{{ text }}}} is ambiguous: {named}; choose a field with --column")
    if survey.n_empty:
        console.warn(
            f"{counted(survey.n_empty, 'record')} with an empty text (record {survey.first_empty}): the model is asked all the same"
        )
    if survey.n_unusable:
        console.warn(
            f"{counted(survey.n_unusable, 'record')} without a valid id ({survey.first_unusable}): "
            "using the line number instead; an id must be a string or a whole number"
        )
    if survey.n_twice:
        console.warn(
            f"{counted(survey.n_twice, 'record')} with a duplicate id ({survey.first_twice}); "
            "their results cannot be told apart by id"
        )
    if isinstance(job, TemplateJob):
        warn_of_braces(job.template, {*survey.names, TEXT})
    for name in keep:
        _check_seen("--keep", name, survey)
    for column in golds.values():
        _check_seen("--eval", column, survey)
    if gold:
        _check_gold(survey, labels)
    return survey


def _check_seen(option: str, name: str, survey: Survey) -> None:
    if survey.n and name not in survey.seen:
        there = ", ".join(list(survey.names)[:20]) or "none"
        raise UsageError(
            f"{option}: no record has a field {name!r}; fields are {there}{nearest(name, tuple(survey.names))}"
        )


def _check_gold(survey: Survey, labels: Sequence[str]) -> None:
    """Refuse gold labels that are written in another way than --choice has them; warn of those that it lacks."""
    if not survey.strange:
        return
    near = {folded(label): label for label in labels}
    for label, n in survey.strange.items():
        if folded(label) in near:
            raise UsageError(
                f"--eval: {counted(n, 'record')} with the label {label!r}, and --choice has {near[folded(label)]!r}; use the same spelling, or they all count as wrong"
            )
    n_strange = survey.strange.total()
    listed = ", ".join(repr(label) for label, _ in survey.strange.most_common(SHOWN))
    if n_strange == survey.n_gold:
        raise UsageError(f"--eval: no record has one of the labels of --choice; they have {listed}")
    console.warn(
        f"--eval: {counted(n_strange, 'record')} with a label that is not in --choice ({listed}), counted as wrong"
    )
