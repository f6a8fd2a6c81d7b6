"""What a model is, read from its header and its manifest."""

from collections import Counter
from typing import Any

from mixcli.hub.store import StoredModel
from mixcli.words import count, size
from profiles.shape import ModelShape, model_shape, tensor_class
from quantize.gguf_header import GgufHeader, read_header


def shape_of(header: GgufHeader) -> ModelShape:
    """Give the planner's view of a header."""
    return model_shape(
        {key: value.value for key, value in header.metadata.items()},
        ((tensor.name, tensor.n_elements, tensor.n_bytes) for tensor in header.tensors),
    )


def card(model: StoredModel) -> dict[str, Any]:
    """Give what is known of a model as label -> value, in reading order; counts are numbers, sizes bytes."""
    header = read_header(model.path)
    shape = shape_of(header)
    facts: dict[str, Any] = {
        "model": model.label,
        "description": model.manifest.description if model.manifest else header.get("general.name", ""),
        "parameters": shape.params_total,
        "active_parameters": shape.params_active,
        "experts": shape.n_expert,
        "experts_used": shape.n_expert_used,
        "layers": shape.n_layer,
        "context": shape.n_ctx_train,
        "vocabulary": shape.n_vocab,
        "tokenizer": header.get("tokenizer.ggml.model", "none"),
        "types": _types(header),
        "size": header.file_size,
    }
    if model.manifest:
        about = model.manifest
        facts |= {
            "licence": about.licence_words,
            "origin": about.origin,
            "sha256": about.sha256,
            "since": about.created,
        }
    else:
        facts |= {"licence": header.get("general.license", "unknown")}
    return facts | {"file": str(model.path)}


def for_people(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Give a card's rows as people read them."""
    shown = {
        **facts,
        "parameters": f"{count(facts['parameters'])}, {count(facts['active_parameters'])} active per token",
        "experts": f"{facts['experts']}, {facts['experts_used']} used per token"
        if facts["experts"]
        else "none (dense)",
        "context": f"{facts['context']} tokens",
        "types": ", ".join(f"{what} {types}" for what, types in facts["types"].items()),
        "size": size(facts["size"]),
    }
    hidden = {"active_parameters", "experts_used"}
    return [(key, str(value)) for key, value in shown.items() if key not in hidden]


def _types(header: GgufHeader) -> dict[str, str]:
    """Give the tensor types of each class, the commonest first."""
    found: dict[str, Counter[str]] = {}
    for tensor in header.tensors:
        found.setdefault(tensor_class(tensor.name), Counter())[tensor.type.name] += 1
    return {what: " + ".join(name for name, _ in types.most_common()) for what, types in found.items()}
