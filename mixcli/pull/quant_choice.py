"""Choose the quant of a model that suits a machine, before anything is downloaded."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import floor

from mixcli.errors import DoesNotFit
from mixcli.store.catalog import CatalogEntry
from mixcli.system.formatting import format_bytes
from profiles.machine import Machine
from profiles.models import ModelFacts, facts_of, known_models
from profiles.quality import BITS, USUAL
from profiles.quant_choice import FileChoice, Row, choose
from profiles.request import PlanRequest, Rule
from profiles.shape import ModelShape, model_shape
from quantize.errors import QuantizeError
from quantize.source import ModelSource

# What `mixcli pull` downloads when nothing is named: the first that fits
FAVORITES = ("mixtral", "mistral", "demo")


@dataclass(frozen=True)
class Target:
    """The target of a choice: a machine, the options of its plan, and the preference.

    `machine_for` returns the machine; the shapes that it receives tell it which weight types to measure. `is_asked` is true if the
    user named the rule: then another type than an installed one may suit. `where` names the machine in a sentence ("here"), `options` are
    those of `mixcli pull` that choose for the same machine.
    """

    machine_for: Callable[[Sequence[ModelShape]], Machine]
    request: PlanRequest = field(default_factory=PlanRequest)
    rule: Rule = field(default_factory=Rule)
    is_asked: bool = False
    where: str = "here"
    options: str = ""

    def settled(self, shapes: Mapping[str, ModelShape]) -> "Target":
        """Return the same with the machine for these shapes looked at once, for several choices."""
        machine = self.machine_for(list(shapes.values()))
        return replace(self, machine_for=lambda _: machine)

    def choose(self, shapes: Mapping[str, ModelShape], only: Collection[str] | None = None) -> FileChoice:
        """Choose among the types of `shapes`, or among `only` those; raises what plan() raises."""
        machine = self.machine_for(list(shapes.values()))
        return choose(shapes, machine, self.request, self.rule, only)


def usual_shapes(facts: ModelFacts) -> dict[str, ModelShape]:
    """Return a model in the types that are usually published, as llama.cpp's quantizer would make them."""
    from mixcli.pull.remote_shape import unseen_shapes

    return unseen_shapes(facts, USUAL)


def usual_types(name: str) -> dict[str, ModelShape]:
    """Return the same for a name of the catalog; nothing for one whose dimensions are not known."""
    facts = known_models().get(name)
    return usual_shapes(facts) if facts else {}


def favorite(target: Target) -> tuple[str, FileChoice | None]:
    """Return the catalog's name for a machine and how its types do: the first of FAVORITES that fits in some type, and is as fast as was asked for.

    The last of them runs anywhere, and its types are None. Raises DoesNotFit where some fit and none is fast enough.
    """
    slow = None
    for name in FAVORITES:
        if shapes := usual_types(name):
            planned = target.choose(shapes)
            if planned.chosen:
                return name, planned
            slow = (planned, name) if planned.fastest else slow
    if slow is not None:
        check_rate(*slow)
    return FAVORITES[-1], None


def choices_of(entries: Sequence[CatalogEntry], target: Target) -> list[FileChoice]:
    """Choose for each entry of the catalog; those of equal dimensions are planned once."""
    known: dict[tuple[ModelFacts | None, tuple[str, ...]], FileChoice] = {}
    target = target.settled({})
    for entry in entries:
        facts = known_models().get(entry.name)
        key = facts, entry.types
        if key not in known:
            shapes = usual_shapes(facts) if facts else {}
            known[key] = target.choose(
                {name: shapes[name] for name in entry.types or shapes if name in shapes}
            )
    return [known[known_models().get(entry.name), entry.types] for entry in entries]


def shapes_of_types(shape: ModelShape, sizes: Mapping[str, int | None]) -> dict[str, ModelShape]:
    """Return a model in other types: `sizes` has the bytes of each file, None for one that the quantizer would make.

    A type that the quantizer knows is as it makes it, at the file's size; any other is `shape` in proportion, and left out where no size
    is known.
    """
    facts = facts_of(shape)
    has_elements = min(facts.n_ff, facts.n_vocab, facts.head_dim) > 0
    made = _made(facts, list(sizes)) if has_elements else {}
    found = {}
    for name, n_bytes in sizes.items():
        if name in made:
            found[name] = made[name] if n_bytes is None else made[name].scaled(n_bytes)
        elif n_bytes is not None or name in BITS:
            found[name] = shape.scaled(n_bytes or int(shape.params_total * BITS[name] / 8), name)
    return found


def _made(facts: ModelFacts, names: Sequence[str]) -> dict[str, ModelShape]:
    """Return a model in those of the types that the quantizer can make."""
    from mixcli.pull.remote_shape import unseen_shapes

    try:
        return unseen_shapes(facts, names)
    except QuantizeError:
        alone = (_made(facts, [name]) for name in names) if len(names) > 1 else ()
        return {name: shape for one in alone for name, shape in one.items()}


def type_to_make(
    model: ModelSource, name: str, file_type: str | None, target: Target
) -> tuple[str, FileChoice]:
    """Return the type to make of a checkpoint and how all types would do: `file_type`, or the one that suits the target best.

    Raises DoesNotFit where no quant fits and none was named; `name` is the checkpoint's, for the message.
    """
    shape = model_shape(
        {key: value.value for key, value in model.metadata.items()},
        ((tensor.name, tensor.n_elements, 2 * tensor.n_elements, "BF16") for tensor in model.tensors),
    )
    shapes = shapes_of_types(shape, dict.fromkeys((*BITS, *([file_type] if file_type else ()))))
    if file_type is not None:
        shapes.setdefault(file_type, shape)
        return file_type, target.settled({file_type: shapes[file_type]}).choose(shapes, [file_type])
    planned = target.choose(shapes)
    check_rate(planned, name)
    if planned.chosen is None:
        least = planned.rows[-1]
        raise nothing_fits(name, least.type, least.size, planned.machine, target, f"--quant {least.type}")
    return planned.chosen.type, planned


def nothing_fits(
    name: str, file_type: str, n_bytes: int, machine: Machine, target: Target, anyway: str
) -> DoesNotFit:
    """Return the refusal of a model of which no quant fits: its smallest type, the catalog's model that fits, and how to force a type (`anyway`)."""
    gpus = 0 if machine.unified else sum(gpu.bytes_free for gpu in machine.gpus)
    free = machine.bytes_free + gpus
    other = replace(target, rule=Rule(target.rule.prefer))
    setting = machine.more_memory(n_bytes - free)
    return DoesNotFit(
        f"no quant of {name} fits {target.where}: the smallest, {file_type}, is {format_bytes(n_bytes)}, and {format_bytes(free)} are free; "
        f"{offer(*favorite(other), target)}; to force a quant: {anyway}{f'; for more memory: {setting}' if setting else ''}"
    )


def check_rate(planned: FileChoice, name: str) -> None:
    """Raise DoesNotFit where types of a model fit and none decodes as fast as was asked for."""
    fastest = planned.fastest
    if planned.chosen is None and fastest is not None:
        raise DoesNotFit(
            f"no quant of {name} decodes {planned.rule.min_tps:g} tok/s here: the fastest, {fastest.type}, decodes about "
            f"{fastest.decode:.1f}; try --min-tps {floor(fastest.decode * 10) / 10 or 0.01:g}, or a smaller model (mixcli search)"
        )


@dataclass(frozen=True)
class TypeRow:
    """One file type as people and programs read it: bytes, tokens per second as (low, high), the loss of perplexity in percent.

    Rates are 0 for what does not fit. `on_offer` is False for a type that would have to be made; `reason` says why a row matters.
    """

    type: str
    size: int
    fits: bool
    bytes_on_gpus: int
    bytes_in_memory: int
    n_ctx: int
    decode: tuple[float, float]
    prefill: tuple[float, float]
    loss: float
    loss_basis: str
    on_offer: bool
    chosen: bool
    reason: str


def rows_of(
    planned: FileChoice, taken: str | None, offered: Collection[str] | None = None, *, named: bool = False
) -> tuple[TypeRow, ...]:
    """Return the rows of a choice; `taken` is the type that is taken, `named` says that a person named it, `offered` what can be had as it is."""
    why = "asked for" if named else f"chosen: {planned.why}"
    best = planned.best.type if planned.best else None
    other = f"{planned.rule.prefer} would choose this one"
    notes = {best: other} if best else {}
    notes |= {taken: why} if taken else {}
    return tuple(
        _row(row, planned, notes.get(row.type, ""), row.type == taken, offered is None or row.type in offered)
        for row in planned.rows
    )


def _row(row: Row, planned: FileChoice, note: str, taken: bool, on_offer: bool) -> TypeRow:
    notes = [note] if note else []
    if row is planned.largest_on_gpus:
        notes.append("the largest that fits entirely on the GPUs")
    rates = row.plan.estimate if row.plan else None
    return TypeRow(
        row.type,
        row.size,
        row.plan is not None,
        row.bytes_on_gpus,
        row.size - row.bytes_on_gpus if row.plan else 0,
        row.plan.n_ctx if row.plan else 0,
        rates.ends(rates.decode) if rates else (0.0, 0.0),
        rates.ends(rates.prefill) if rates else (0.0, 0.0),
        round(row.loss.percent, 2),
        row.loss.basis,
        on_offer,
        taken,
        "; ".join(notes),
    )


def choice_data(
    label: str, planned: FileChoice | None, rows: Sequence[TypeRow], profile: str | None
) -> dict[str, object]:
    """Return how a type was chosen as plain data; `prefer` and `reason` are None where a file or a type was named (`planned` is None)."""
    return {
        "model": label,
        "profile": profile or "auto",
        "prefer": planned.rule.prefer if planned else None,
        "reason": planned.why if planned else None,
        "types": [asdict(row) for row in rows],
    }


def better_type(label: str, target: Target) -> Row | None:
    """Return the type that suits the target better than that of a label name:TYPE; None where it is that one, or the name has no known dimensions."""
    name, _, file_type = label.rpartition(":")
    shapes = usual_types(name)
    chosen = target.choose(shapes).chosen if shapes else None
    return chosen if chosen is not None and chosen.type != file_type else None


def in_short(row: Row, where: str) -> str:
    """Return a type that fits in a few words: its name, its size, and how fast it decodes `where` ("here", "on rtx-4090")."""
    rate = f"{row.decode:.0f}" if row.decode >= 10 else f"{row.decode:.1f}"
    return f"{row.type}, {format_bytes(row.size)}, about {rate} tok/s {where}"


def offer(name: str, planned: FileChoice | None, target: Target, text: str | None = None) -> str:
    """Return which command downloads the chosen type of a model, its size and its rate. `text` is what the command names: `name`, or nothing.

    The demo, whose types are not planned, runs anywhere.
    """
    row = planned.chosen if planned else None
    if row is None:
        return f"`mixcli pull {name}` makes a small one offline"
    short = in_short(row, target.where)
    if text == "":
        return f"{pull_command('', target)} downloads {name}:{short}"
    return f"{pull_command(text or name, target)} downloads {short}"


def pull_command(text: str, target: Target) -> str:
    """Return the pull command for a model and a target, in backquotes."""
    return f"`{' '.join(filter(None, ('mixcli pull', text, target.options)))}`"


def how_it_runs(row: Row, others: Sequence[Row] = ()) -> str:
    """Return in words how fast a type is and where it is, or that it does not fit and which of the others, largest first, does."""
    if row.plan is None:
        fits = next((other for other in others if other.plan), None)
        step = f"; the largest quant that fits is {fits.type} ({format_bytes(fits.size)})" if fits else ""
        return f"it does not fit in memory{step}"
    rates = row.plan.estimate
    where = f"{format_bytes(row.bytes_on_gpus)} on GPUs, {format_bytes(row.size - row.bytes_on_gpus)} in host memory"
    return (
        f"decode {rates.shown(rates.decode)}, prefill {rates.shown(rates.prefill)} tok/s ({rates.basis}), "
        f"context {row.plan.n_ctx} tokens, {where if row.bytes_on_gpus else 'in host memory'}"
    )


__all__ = [
    "Target",
    "TypeRow",
    "better_type",
    "check_rate",
    "choice_data",
    "choices_of",
    "favorite",
    "how_it_runs",
    "in_short",
    "nothing_fits",
    "offer",
    "pull_command",
    "rows_of",
    "shapes_of_types",
    "usual_shapes",
    "usual_types",
]
