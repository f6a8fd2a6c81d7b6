"""The facts of a model, from its header and its manifest."""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from mixcli.errors import IntegrityError
from mixcli.store import usage
from mixcli.store.damaged import Damaged
from mixcli.store.headers import header_of, prompt_format, shape_of
from mixcli.store.licenses import License, license_of
from mixcli.store.store import StoredModel
from mixcli.system.formatting import count, format_bytes
from profiles.shape import tensor_class
from quantize.sources.gguf_header import GgufHeader

MAX_TEXT = 200  # characters of a name that a file gives itself


def model_info(model: StoredModel) -> dict[str, Any]:
    """Return the facts of a model as label -> value, in reading order; counts are numbers, sizes bytes."""
    header = header_of(model.parts)
    shape = shape_of(header)
    about = model.manifest
    facts: dict[str, Any] = {
        "model": model.label,
        "description": about.description if about else _text(header, "general.name"),
        "parameters": shape.params_total,
        "active_parameters": shape.params_active,
        "experts": shape.n_expert,
        "experts_used": shape.n_expert_used,
        "layers": shape.n_layer,
        "context": shape.n_ctx_train,
        "vocabulary": shape.n_vocab,
        "tokenizer": _text(header, "tokenizer.ggml.model") or "none",
        "prompt": (about.prompt if about else "") or prompt_format(header),
        "types": _types(header),
        "size": header.file_size,
    }
    if about:
        facts |= {
            "alignment": about.alignment or "unknown",
            "licence": about.licence_words,
            "origin": about.origin,
            "revision": about.revision,
            "sha256": about.sha256,
            "since": about.created,
        }
    else:
        facts |= {
            "licence": _licence(header).words,
            "origin": f"found in {model.seen.keeper}, not pulled by mixcli"
            if model.seen
            else "a file given by its path",
            "sha256": model.seen.sha256[0] if model.seen else "",
        }
    return facts | {"files": [str(path) for path in model.parts]}


def row(model: StoredModel) -> dict[str, Any]:
    """Return what `mixcli list` shows of a model; a file that cannot be read costs its numbers and nothing else."""
    about = model.manifest
    last = usage.last(model.path)
    facts: dict[str, Any] = {
        "model": model.label,
        "path": str(model.path),
        "size": about.size if about else _size(model),
        "keeper": model.seen.keeper if model.seen else "mixcli",
        "last_used": last.isoformat(timespec="seconds") if last else None,
    }
    try:
        header = header_of(model.parts)
        shape = shape_of(header)
        facts |= {
            "parameters": shape.params_total,
            "active_parameters": shape.params_active,
            "context": shape.n_ctx_train,
            "architecture": header.architecture,
            "licence": about.licence if about else _licence(header).name,
        }
    except IntegrityError as error:
        facts |= {
            "parameters": 0,
            "active_parameters": 0,
            "context": 0,
            "architecture": "",
            "licence": about.licence if about else "unknown",
            "problem": str(error),
        }
    if about:
        known = asdict(about)
        facts |= {
            key: known[key]
            for key in ("name", "type", "description", "licence_words", "origin", "created", "revision")
        }
        facts |= {"sha256": about.sha256, "files": [str(path) for path in model.parts]}
    return facts


def damaged_row(one: Damaged) -> dict[str, Any]:
    """Return what `mixcli list --json` shows of a model of the store that cannot be used: `damaged` has the cause and the next step."""
    about = one.manifest
    return {
        "model": one.label,
        "path": str(one.home),
        "size": about.size if about else 0,
        "keeper": "mixcli",
        "last_used": None,
        "parameters": 0,
        "active_parameters": 0,
        "context": 0,
        "architecture": "",
        "licence": about.licence if about else "unknown",
        "damaged": one.sentence,
    }


def to_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a card's rows as people read them."""
    shown = {
        **facts,
        "parameters": f"{count(facts['parameters'])}, {count(facts['active_parameters'])} active per token",
        "experts": f"{facts['experts']}, {facts['experts_used']} used per token"
        if facts["experts"]
        else "none (dense)",
        "context": f"{facts['context']} tokens",
        "types": ", ".join(f"{what} {types}" for what, types in facts["types"].items()),
        "size": format_bytes(facts["size"]),
        "files": "\n".join(facts["files"]),
    }
    hidden = {"active_parameters", "experts_used"}
    return [(key, str(value)) for key, value in shown.items() if key not in hidden and value != ""]


def _text(header: GgufHeader, key: str) -> str:
    """Return a text out of a header, cut where it is long; nothing where it is something else."""
    value = header.get(key)
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _size(model: StoredModel) -> int:
    """Return the bytes of a model's files; a file that went away meanwhile has none."""
    total = 0
    for path in model.parts:
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _licence(header: GgufHeader) -> License:
    name = header.get("general.license")
    return license_of(name if isinstance(name, str) else None)


def _types(header: GgufHeader) -> dict[str, str]:
    """Return the tensor types of each class, the commonest first."""
    found: dict[str, Counter[str]] = {}
    for tensor in header.tensors:
        found.setdefault(tensor_class(tensor.name), Counter())[tensor.type.name] += 1
    return {what: " + ".join(name for name, _ in types.most_common()) for what, types in found.items()}
