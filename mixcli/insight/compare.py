"""Compare quants of one model: size, distance from the largest, and speed on this machine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from mixcli.errors import DoesNotFit, ModelDied, UsageError
from mixcli.insight.perplexity import PerplexityRequest, measure
from mixcli.insight.statistics import Estimate, TextScores
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.plan_load import plan_load
from mixcli.planning.report import Subject
from mixcli.planning.verify_plan import measured
from mixcli.store.headers import header_of, shape_of
from mixcli.store.reference import is_path
from mixcli.store.store import StoredModel, find
from mixcli.system.console import Bar

PROMPT, TOKENS = 256, 24  # of the measurement of speed


@dataclass(frozen=True)
class ModelSpeed:
    """Measured tokens per second, and the bytes that the plan has on each device."""

    prefill: float
    decode: float
    bytes_on: dict[str, int]


@dataclass(frozen=True)
class ComparedModel:
    """One file: bytes, bits per weight, scores of all texts against the largest file (None for that one), speed (None where it does not fit)."""

    label: str
    n_bytes: int
    bits: float
    perplexity: Estimate
    scores: TextScores | None
    speed: ModelSpeed | None

    def to_data(self) -> dict[str, object]:
        return asdict(self)


def models_named(texts: Sequence[str]) -> list[StoredModel]:
    """Return the models that texts mean, largest first: mixtral:Q3_K_M,Q4_K_M are two, and so are mixtral:Q3_K_M,mixtral:Q4_K_M.

    Raises UsageError for fewer than two, and for one that is named twice; what `store.find` raises for one that is not installed.
    """
    names = [name for text in texts for name in _names(text)]
    found = [find(name) for name in names]
    if len(found) < 2:
        raise UsageError(
            "compare needs at least two models; pass quants of one, such as mixtral:Q3_K_M,Q4_K_M"
        )
    places = [model.path.resolve() for model in found]
    if twice := next(
        (name for name, place in zip(names, places, strict=True) if places.count(place) > 1), None
    ):
        raise UsageError(f"{twice} is given twice; pass each model once")
    return sorted(found, key=_size, reverse=True)


def compared(
    models: Sequence[StoredModel], request: PerplexityRequest, load_options: LoadOptions, bar: Bar
) -> list[ComparedModel]:
    """Return how models do on the texts, largest first, which is the baseline of the others, and how fast they run as planned here.

    Raises UsageError for texts that are too short and for models of different vocabularies, and the errors of a load.
    """
    baseline, *others = models
    scores = {one.path: measure(one, baseline, request, load_options, bar)[0] for one in others}
    first = scores[others[0].path].baseline_perplexity
    assert first
    return [
        ComparedModel(
            one.label,
            _size(one),
            8 * _size(one) / sum(tensor.n_elements for tensor in header_of(one.parts).tensors),
            scores[one.path].perplexity if one.path in scores else first,
            scores.get(one.path),
            _speed(one, load_options),
        )
        for one in models
    ]


def _names(text: str) -> list[str]:
    name, colon, quants = text.partition(":")
    if is_path(text) or not colon or "," not in quants:
        return [text]
    words = [word.strip() for word in quants.split(",") if word.strip()]
    return [word if ":" in word else f"{name}:{word}" for word in words]


def _size(stored: StoredModel) -> int:
    return sum(part.stat().st_size for part in stored.parts)


def _speed(stored: StoredModel, load_options: LoadOptions) -> ModelSpeed | None:
    """Measure a model as it would be planned for a chat; None where it does not fit or crashes."""
    request = replace(load_options.request, n_ctx=None)
    try:
        plan = plan_load(stored, replace(load_options, request=request))
        subject = Subject(stored.label, shape_of(header_of(stored.parts)), stored.path)
        prompt = min(PROMPT, plan.placement.n_ctx // 2)
        answer = measured(subject, plan.placement, {}, prompt=prompt, tokens=TOKENS)
    except (DoesNotFit, ModelDied):
        return None
    on = {device: sum(parts.values()) for device, parts in plan.expected.items()}
    return ModelSpeed(answer.prefill, answer.decode, on)
