"""The facts of a model, from its header and its manifest."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from mixcli.errors import IntegrityError
from mixcli.store import usage
from mixcli.store.catalog import catalog
from mixcli.store.damaged import Damaged
from mixcli.store.headers import header_of, prompt_format, shape_of
from mixcli.store.licenses import License, license_of
from mixcli.store.preflight import family_note
from mixcli.store.store import StoredModel
from mixcli.store.vocabulary import smaller_alike
from mixcli.system.formatting import count, format_bytes
from mixcli.system.text import shown
from profiles.shape import tensor_class
from quantize.sources.gguf_header import GgufHeader

# where people read another word than programs
LABELS = {"since": "installed", "prompt": "prompt format", "smaller": "smaller, same vocabulary"}


@dataclass(frozen=True)
class ModelInfo:
    """The facts of a model, in reading order: counts, bytes, and texts; None for what only a manifest or the catalog says.

    `images`: the model sees images, which mixcli does not pass on. `smaller` are the smaller models with the same vocabulary.
    """

    model: str
    description: str
    parameters: int
    active_parameters: int
    experts: int
    experts_used: int
    experts_shared: int
    layers: int
    context: int
    vocabulary: int
    tokenizer: str
    prompt: str
    images: bool | None
    smaller: tuple[str, ...]
    types: Mapping[str, str]
    size: int
    alignment: str | None
    license: str
    origin: str
    revision: str | None
    sha256: str
    since: str | None
    files: tuple[str, ...]
    note: str | None = None

    def to_data(self) -> dict[str, object]:
        """Return what --json prints."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the rows as people read them."""
        shown = {
            **self.to_data(),
            "parameters": f"{count(self.parameters)}, {count(self.active_parameters)} active per token",
            "experts": self._experts_words(),
            "context": f"{self.context} tokens",
            "images": "" if self.images is None else images_words(self.images),
            "smaller": ", ".join(self.smaller),
            "types": ", ".join(f"{what} {types}" for what, types in self.types.items()),
            "size": format_bytes(self.size),
            "files": "\n".join(self.files),
        }
        hidden = {"active_parameters", "experts_used", "experts_shared"}
        return [
            (LABELS.get(key, key), str(value))
            for key, value in shown.items()
            if key not in hidden and value != ""
        ]

    def _experts_words(self) -> str:
        if not self.experts:
            return "none (dense)"
        shared = f", and {self.experts_shared} shared by all" if self.experts_shared else ""
        return f"{self.experts}, {self.experts_used} used per token{shared}"


@dataclass(frozen=True)
class ModelRow:
    """What `mixcli list` shows of a model; `more` is what --json prints beside that."""

    model: str
    path: str
    size: int
    keeper: str
    last_used: str | None
    parameters: int = 0
    active_parameters: int = 0
    context: int = 0
    architecture: str = ""
    license: str = "unknown"
    more: Mapping[str, object] = field(default_factory=dict)

    def to_data(self) -> dict[str, object]:
        """Return what --json prints."""
        return {**{key: value for key, value in vars(self).items() if key != "more"}, **self.more}


def model_info(model: StoredModel) -> ModelInfo:
    """Return the facts of a model from its header, and from its manifest where it has one."""
    header = header_of(model.parts)
    shape = shape_of(header)
    about = model.manifest
    known = catalog().get(about.name) if about else None
    found = (
        f"found in {model.seen.keeper}, not pulled by mixcli" if model.seen else "a file given by its path"
    )
    return ModelInfo(
        model=model.label,
        description=shown(about.description) if about else _text(header, "general.name"),
        parameters=shape.params_total,
        active_parameters=shape.params_active,
        experts=shape.n_expert,
        experts_used=shape.n_expert_used,
        experts_shared=shape.n_ff_shared // max(1, shape.expert_width),
        layers=shape.n_layer,
        context=shape.n_ctx_train,
        vocabulary=shape.n_vocab,
        tokenizer=_text(header, "tokenizer.ggml.model") or "none",
        prompt=(about.prompt if about else "") or prompt_format(header),
        images=known.images if known else None,
        smaller=smaller_alike(model, header),
        types=_types(header),
        size=header.file_size,
        alignment=(about.alignment or "unknown") if about else None,
        license=about.license_words if about else _license(header).words,
        origin=about.origin if about else found,
        revision=about.revision if about else None,
        sha256=about.sha256 if about else model.seen.sha256[0] if model.seen else "",
        since=about.created if about else None,
        files=tuple(str(path) for path in model.parts),
        note=next(iter(family_note(header)), None),
    )


def images_words(images: bool) -> str:
    """Return whether a model sees images, and that mixcli only gives it text."""
    return "the model sees them, but here it reads text only" if images else "none, a text model"


def row(model: StoredModel) -> ModelRow:
    """Return what `mixcli list` shows of a model; of a file that cannot be read only the numbers are missing."""
    about = model.manifest
    last = usage.last(model.path)
    more: dict[str, object] = {}
    if about:
        known = asdict(about)
        keys = ("name", "type", "description", "license_words", "prompt", "origin", "created", "revision")
        more = {key: known[key] for key in keys}
        more |= {"images": entry.images} if (entry := catalog().get(about.name)) else {}
        more |= {"sha256": about.sha256, "files": [str(path) for path in model.parts]}
    start = ModelRow(
        model.label,
        str(model.path),
        about.size if about else _size(model),
        model.seen.keeper if model.seen else "mixcli",
        last.isoformat(timespec="seconds") if last else None,
        license=about.license if about else "unknown",
        more=more,
    )
    try:
        header = header_of(model.parts)
        shape = shape_of(header)
    except IntegrityError as error:
        return replace(start, more={"problem": str(error), **more})
    return replace(
        start,
        parameters=shape.params_total,
        active_parameters=shape.params_active,
        context=shape.n_ctx_train,
        architecture=header.architecture,
        license=about.license if about else _license(header).name,
    )


def damaged_row(one: Damaged) -> ModelRow:
    """Return what `mixcli list --json` shows of a model of the store that cannot be used: `damaged` has the cause and the next step."""
    about = one.manifest
    return ModelRow(
        one.label,
        str(one.home),
        about.size if about else 0,
        "mixcli",
        None,
        license=about.license if about else "unknown",
        more={"damaged": one.sentence},
    )


def _text(header: GgufHeader, key: str) -> str:
    """Return a text out of a header as a sentence can hold it; nothing where it is something else."""
    value = header.get(key)
    return shown(value) if isinstance(value, str) else ""


def _size(model: StoredModel) -> int:
    """Return the bytes of a model's files; a file that went away meanwhile has none."""
    total = 0
    for path in model.parts:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _license(header: GgufHeader) -> License:
    name = header.get("general.license")
    return license_of(name if isinstance(name, str) else None)


def _types(header: GgufHeader) -> dict[str, str]:
    """Return the tensor types of each class, the commonest first."""
    found: dict[str, Counter[str]] = {}
    for tensor in header.tensors:
        found.setdefault(tensor_class(tensor.name), Counter())[tensor.type.name] += 1
    return {what: " + ".join(name for name, _ in types.most_common()) for what, types in found.items()}
