"""What a model of the catalog is before it is pulled, and how its files would run here."""

from collections.abc import Mapping
from dataclasses import dataclass

from mixcli.pull.quant_choice import Target, offer, usual_types
from mixcli.store.catalog import CatalogEntry
from mixcli.store.model_info import LABELS, images_words
from mixcli.store.vocabulary import smaller_in_catalog
from mixcli.system.formatting import count, format_bytes


@dataclass(frozen=True)
class CatalogInfo:
    """The facts of a model of the catalog that is not installed: `types` has about how many bytes each type takes, None where that is not known,
    `suits` the type for the target, empty where none fits, `pull` the command that downloads it. `images`: the model sees images, which
    mixcli does not pass on. `smaller` are the smaller models of the catalog with the same vocabulary.
    """

    model: str
    installed: bool
    description: str
    parameters: int
    active_parameters: int
    context: int
    prompt: str
    images: bool
    kind: str
    alignment: str
    license: str
    format: str
    origin: str
    safetensors: str
    smaller: tuple[str, ...]
    types: Mapping[str, int | None]
    suits: str
    pull: str

    def to_data(self) -> dict[str, object]:
        """Return what --json prints."""
        return dict(vars(self))

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the rows as people read them."""
        sizes = (
            f"{name} {format_bytes(n_bytes)}" if n_bytes else name for name, n_bytes in self.types.items()
        )
        shown = {
            **self.to_data(),
            "installed": "no",
            "parameters": f"{count(self.parameters)}, {count(self.active_parameters)} active per token",
            "context": f"{self.context} tokens",
            "images": images_words(self.images),
            "smaller": ", ".join(self.smaller),
            "types": ", ".join(sizes),
        }
        hidden = {"active_parameters", "suits"}
        return [
            (LABELS.get(key, key), str(value))
            for key, value in shown.items()
            if key not in hidden and value != ""
        ]


def catalog_info(of: CatalogEntry, target: Target) -> CatalogInfo:
    """Return the facts of a model of the catalog and which of its types suits the target, without the network."""
    shapes = usual_types(of.name)
    planned = target.choose(shapes) if shapes else None
    chosen = planned.chosen if planned else None
    return CatalogInfo(
        model=of.name,
        installed=False,
        description=of.description,
        parameters=round(of.parameters * 1e9),
        active_parameters=round(of.active * 1e9),
        context=of.context,
        prompt=of.prompt,
        images=of.images,
        kind=of.kind,
        alignment=of.alignment,
        license=of.license_words,
        format="GGUF",
        origin=of.gguf or of.origin,
        safetensors=of.safetensors,
        smaller=smaller_in_catalog(of),
        types={name: shape.bytes_weights for name, shape in shapes.items()} or dict.fromkeys(of.types),
        suits=chosen.type if chosen else of.default_type if planned is None else "",
        pull=offer(of.name, planned, target)
        if chosen or planned is None
        else f"no quant fits {target.where}",
    )
