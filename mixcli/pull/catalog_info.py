"""What a model of the catalog is before it is pulled, and how its files would run here."""

from typing import Any

from mixcli.pull.type_choice import Target, offer, usual_types
from mixcli.store.catalog import CatalogEntry
from mixcli.system.formatting import count, format_bytes


def catalog_info(of: CatalogEntry, target: Target) -> dict[str, Any]:
    """Return the facts of a model of the catalog that is not installed, without the network: `types` has about how many bytes each type takes,
    `suits` the type for the target, empty where none fits.
    """
    shapes = usual_types(of.name)
    planned = target.choose(shapes) if shapes else None
    chosen = planned.chosen if planned else None
    return {
        "model": of.name,
        "installed": False,
        "description": of.description,
        "parameters": round(of.parameters * 1e9),
        "active_parameters": round(of.active * 1e9),
        "context": of.context,
        "prompt": of.prompt,
        "kind": of.kind,
        "alignment": of.alignment,
        "licence": of.licence_words,
        "format": "GGUF",
        "origin": of.gguf or of.origin,
        "safetensors": of.safetensors,
        "types": {name: shape.bytes_weights for name, shape in shapes.items()} or dict.fromkeys(of.types),
        "suits": chosen.type if chosen else of.default_type if planned is None else "",
        "pull": offer(of.name, planned, target)
        if chosen or planned is None
        else f"no type fits {target.where}",
    }


def catalog_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a catalog card's rows as people read them."""
    sizes = (
        f"{name} {format_bytes(n_bytes)}" if n_bytes else name for name, n_bytes in facts["types"].items()
    )
    shown = {
        **facts,
        "installed": "no",
        "parameters": f"{count(facts['parameters'])}, {count(facts['active_parameters'])} active per token",
        "context": f"{facts['context']} tokens",
        "types": ", ".join(sizes),
    }
    hidden = {"active_parameters", "suits"}
    return [(key, str(value)) for key, value in shown.items() if key not in hidden and value != ""]
