"""Present plans to people and programs: memory bars, llama.cpp flags, alternatives."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from math import log
from pathlib import Path

from mixcli.errors import DoesNotFit, UsageError
from mixcli.pull import hub_environment
from mixcli.pull.quant_choice import (
    Target,
    TypeRow,
    check_rate,
    favorite,
    rows_of,
    shapes_of_types,
    usual_shapes,
)
from mixcli.pull.remote_shape import unseen_shape
from mixcli.store import default_model
from mixcli.store.headers import shape_of
from mixcli.store.reference import is_path, is_there
from mixcli.store.store import find, models
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes
from profiles.ledger import PARTS, Account
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.models import known_models
from profiles.placement import Placement
from profiles.planner import Plan, PlanRequest, plan_if_it_fits
from profiles.quality import BITS, USUAL
from profiles.quant_choice import FileChoice, Row, row_of
from profiles.shape import ModelShape
from profiles.speed import Estimate
from quantize.sources.gguf_header import GgufHeader

BAR, BESIDE = 46, 34  # characters of a bar, and of the device and the numbers beside it
LETTERS = {
    "experts": "E",
    "attention": "A",
    "output": "O",
    "embedding": "T",
    "kv": "K",
    "compute": "C",
    "staging": "S",
    "process": "P",
}
MAX_TYPES, MAX_CONTEXTS = 4, 2  # that are shown beside the plan; each is planned in full
CONTEXTS = (4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True)
class Subject:
    """What a plan is for: a file, or a model that is not here in a file type; `planned` are its types where one was chosen.

    `header` is that of a file, here or on the Hub.
    """

    label: str
    shape: ModelShape
    path: Path | None
    planned: FileChoice | None = None
    header: GgufHeader | None = None


def subject_of(model: str | None, quant: str | None, target: Target) -> Subject:
    """Find the named model: one of this machine, a .gguf file, org/repo of the Hub, or a known name; without a type one is chosen."""
    name, _, named_type = (model or "").partition(":")
    facts = known_models().get(name)
    is_open = facts and target.is_asked  # another type than that which is here may suit
    if quant is None and not is_open and not (facts and named_type):
        try:
            return _here(model)
        except UsageError:
            if facts is None and not _is_remote(name):
                raise
    is_remote = _is_remote(name)
    if quant and named_type and (facts or is_remote) and quant.upper() != named_type.upper():
        raise UsageError(f"{model} and --quant {quant} both name a quant; remove one of them")
    if is_remote:
        return _remote(model or "", quant, target)
    from mixcli.store.file_types import file_type as type_name

    if facts is None:
        wanted = type_name(quant or "")
        if model:
            with suppress(UsageError):  # the very file is here: no first look is needed
                return _here(f"{name}:{wanted}")
        here = _here(model)
        shapes = shapes_of_types(here.shape, {wanted: None})
        if wanted not in shapes:
            raise UsageError(
                f"{wanted} cannot be estimated from a file in another quant; use one of {', '.join(BITS)}"
            )
        return Subject(f"{here.label} as {wanted} (about)", shapes[wanted], None)
    if named := quant or named_type:
        file_type = type_name(named)
        return Subject(f"{name}:{file_type}", unseen_shape(facts, file_type), None)
    planned = target.choose(usual_shapes(facts))
    check_rate(planned, name)
    return _of_catalog(name, planned)


def subject_or_best(model: str | None, quant: str | None, target: Target) -> Subject:
    """Return subject_of(); where nothing is named and no model stands out, the catalog's best for the target, which is noted.

    Raises DoesNotFit where only the demo fits.
    """
    if model or quant or default_model.get() or len(models()) == 1:
        return subject_of(model, quant, target)
    name, planned = favorite(target)
    if planned is None or planned.chosen is None:
        if models():
            return _here(None)
        raise DoesNotFit(
            f"no model of the catalog fits {target.where}; `mixcli pull demo` makes a small one, which runs anywhere, "
            "and `mixcli plan MODEL` shows what another one needs"
        )
    console.note(
        f"no model named and no default set: planning {name}, the best catalog model that fits {target.where}"
    )
    return _of_catalog(name, planned)


def _of_catalog(name: str, planned: FileChoice) -> Subject:
    row = planned.chosen or planned.rows[-1]  # the smallest, which is then refused with ways out
    label = f"{name}:{row.type}"
    path = next((stored.path for stored in models() if stored.label == label), None)
    return Subject(label, row.shape, path, planned)


def check_rule(subject: Subject, target: Target) -> None:
    """Raise UsageError where a person asked how to choose a type, and the subject is one file."""
    if target.is_asked and subject.planned is None:
        option = "--prefer" if target.rule.min_tps is None else "--min-tps"
        raise UsageError(f"{option} chooses a quant, but {subject.label} is a single file; remove {option}")


def _here(model: str | None) -> Subject:
    from mixcli.store.preflight import check_gguf

    stored = find(model)
    header = check_gguf(stored.path)
    return Subject(stored.label, shape_of(header), stored.path, header=header)


def _is_remote(name: str) -> bool:
    """Return whether a name has the form org/repo and is not a path here."""
    return name.count("/") == 1 and not is_path(name) and not is_there(Path(name))


def _remote(text: str, quant: str | None, target: Target) -> Subject:
    """Read the header of a repository's GGUF by Range requests; nothing else is fetched."""
    hub_environment.check()
    from mixcli.pull.gguf_pull import choose as choose_file
    from mixcli.pull.hub_client import look
    from mixcli.store.reference import Reference

    reference = Reference.parse(text)
    file_type = (quant or reference.type or "").upper() or None
    choice = choose_file(
        look(reference.name, reference.revision or "main"), file_type, reference.file, target
    )
    planned = choice.planned if file_type is None and reference.file is None else None
    return Subject(f"{reference.name}:{choice.type}", shape_of(choice.header), None, planned, choice.header)


def bars(ledger: tuple[Account, ...], width: int) -> Iterator[str]:
    """Draw one line of at most `width` columns for each device: its memory by part, what stays free, and the numbers."""
    bar = min(BAR, max(width - BESIDE, 1))
    for account in ledger:
        total = max(account.bytes_free, account.need, 1)
        drawn = ""
        reached = 0
        for part in PARTS:
            reached += getattr(account, part)
            drawn += LETTERS[part] * (round(reached / total * bar) - len(drawn))
        parts = [
            f"{part} {getattr(account, part) / GIB:.2f}"
            for part in PARTS
            if getattr(account, part) >= 5 << 20
        ]
        yield f"{account.device:<8} [{drawn:.<{bar}}] {account.need / GIB:.2f} of {account.bytes_free / GIB:.2f} GiB"
        yield f"{'':<8} {', '.join(parts)}"


def flags(placement: Placement) -> str:
    """Write a placement as llama-server takes it."""
    words = [
        f"-c {placement.n_ctx} -b {placement.n_batch} -ub {placement.n_ubatch} -ngl {placement.n_gpu_layers}",
        f"-fa {'on' if placement.flash_attn else 'off'} -ctk {placement.type_k} -ctv {placement.type_v}",
        f"-t {placement.n_threads} -tb {placement.n_threads_batch}",
    ]
    if placement.tensor_split:
        words.append(f"-ts {','.join(f'{share:g}' for share in placement.tensor_split)}")
    words += [f"-ot '{pattern}={buffer}'" for pattern, buffer in placement.tensor_overrides]
    if placement.load_mode != "mmap":
        words.append("--no-mmap" if placement.load_mode == "none" else "--mlock")
    if not placement.repack:
        words.append("--no-repack")
    if not placement.op_offload:
        words.append("--no-op-offload")
    if placement.workers:
        words.append(f"--rpc {','.join(placement.workers)}")
    return " ".join(words)


def network_lines(estimate: Estimate) -> Iterator[str]:
    """Yield the network's share of the time, and the path to each worker's device; nothing without workers."""
    share = estimate.network
    if share is None:
        return
    token, of_prefill = 1 / estimate.decode, share.prefill_seconds * estimate.prefill
    yield (
        f"network   {1000 * share.decode_seconds:.2g} ms a token of {1000 * token:.3g} ({100 * share.decode_seconds / token:.0f} %), "
        f"{100 * of_prefill:.0f} % of prefill; {format_bytes(share.bytes_token)} a token, {format_bytes(share.bytes_ubatch)} a micro-batch"
    )
    for one in share.workers:
        trips = f"{counted(one.trips, 'round trip')} a token of {1000 * one.round_trip:.2g} ms"
        yield f"          {one.device}: {trips}, {one.gbs:.2g} GB/s"


@dataclass(frozen=True)
class Alternative:
    """Another plan that would fit: what differs, its estimate, and experts on GPUs in bytes."""

    what: str
    n_ctx: int
    estimate: Estimate
    bytes_on_gpus: int

    def to_data(self) -> dict[str, object]:
        """Return it as --json prints it: the rates in tokens per second, with the ends of their range as shares."""
        rates = self.estimate
        return {
            "what": self.what,
            "n_ctx": self.n_ctx,
            "decode": rates.decode,
            "prefill": rates.prefill,
            "low": rates.low,
            "high": rates.high,
            "bytes_on_gpus": self.bytes_on_gpus,
        }


def others(subject: Subject, machine: Machine, request: PlanRequest, chosen: Plan) -> list[Alternative]:
    """Return what else would fit: the largest file that is wholly on GPUs first, the nearest types, the nearest contexts in this type."""
    nearest, largest = _neighbors(subject, machine, request)
    found = [
        _other(
            f"{row.type}{', the largest that fits entirely on the GPUs' if row is largest else ''}", row.plan
        )
        for row in (*([largest] if largest else []), *(row for row in nearest if row is not largest))
        if row.plan is not None
    ]
    contexts = [n for n in CONTEXTS if n != chosen.n_ctx and n <= (subject.shape.n_ctx_train or n)]
    contexts = [n for n in contexts if n >= request.least_ctx]
    for n_ctx in sorted(sorted(contexts, key=lambda n: abs(log(n / chosen.n_ctx)))[:MAX_CONTEXTS]):
        one = plan_if_it_fits(subject.shape, machine, replace(request, n_ctx=n_ctx))
        if one is not None:
            found.append(_other(f"--ctx {n_ctx}", one))
    return found


def _neighbors(subject: Subject, machine: Machine, request: PlanRequest) -> tuple[list[Row], Row | None]:
    """Return the nearest types that fit, the largest first, and the largest that is wholly on GPUs where that is not the subject.

    No more types are planned than that takes.
    """
    here = subject.shape.bytes_weights
    planned = {row.type: row for row in subject.planned.rows} if subject.planned else {}
    known = {name: row.shape for name, row in planned.items()}
    shapes = known or shapes_of_types(subject.shape, dict.fromkeys(USUAL))
    room = machine.bytes_free if machine.unified else sum(gpu.bytes_free for gpu in machine.gpus)

    embedding = max((shape.bytes_embedding for shape in shapes.values()), default=0)  # it is never there

    def row(name: str) -> Row:
        if name not in planned:
            planned[name] = row_of(name, shapes[name], machine, request)
        return planned[name]

    def size(name: str) -> int:
        return shapes[name].bytes_weights

    names = sorted(shapes, key=lambda name: -size(name))
    others = [name for name in names if abs(size(name) - here) > here // 25]
    by_distance = sorted(others, key=lambda name: abs(log(size(name) / here)))
    nearest = list(islice((row(name) for name in by_distance if row(name).plan), MAX_TYPES))
    may_lie_there = (name for name in names if size(name) - embedding < room)
    largest = next((row(name) for name in may_lie_there if row(name).is_on_gpus), None)
    return sorted(nearest, key=lambda one: -one.size), largest if largest and largest.type in others else None


def _other(what: str, one: Plan) -> Alternative:
    return Alternative(what, one.n_ctx, one.estimate, on_gpus(one))


def on_gpus(one: Plan) -> int:
    """Return the bytes of experts that a plan puts on GPUs."""
    return sum(account.experts for account in one.ledger[:-1])


def types_of(subject: Subject) -> tuple[TypeRow, ...]:
    """Return the types that were planned to choose one; none where a file or a type was named."""
    if subject.planned is None:
        return ()
    return rows_of(subject.planned, subject.planned.chosen.type if subject.planned.chosen else None)


def as_data(subject: Subject, one: Plan, runners_up: list[Alternative]) -> dict[str, object]:
    """Return a plan as plain data: placement, ledger in bytes, estimate in tokens per second."""
    return {
        "model": subject.label,
        "bytes_weights": subject.shape.bytes_weights,
        "placement": asdict(one.placement),
        "llama_cpp": flags(one.placement),
        "ledger": [{**asdict(account), "need": account.need, "left": account.left} for account in one.ledger],
        "bytes_experts_on_gpus": on_gpus(one),
        "estimate": asdict(one.estimate),
        "reasons": list(one.reasons),
        "others": [other.to_data() for other in runners_up],
    }
