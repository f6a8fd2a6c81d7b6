"""The model that a file is made of: its weights, and a GGUF of it that can read texts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.store.store import StoredModel, find
from profiles.shape import ModelShape, model_shape
from quantize.conversion import Options, open_model
from quantize.ggml_types import row_bytes
from quantize.recipe import GOOD_SOURCES
from quantize.source import ModelSource
from quantize.tailor.choice import Types


@dataclass(frozen=True)
class TailorSubject:
    """A model's weights, its name, and the model that reads texts in its place; None for a checkpoint, of which one must be made first."""

    model: ModelSource
    name: str
    reader: StoredModel | None
    source: str  # as a person named it

    def shape(self, types: Types) -> ModelShape:
        """Return the planner's view of the model with these types."""
        return model_shape(self._plain, ((one.name, one.n_elements, one.n_rows * row_bytes(types[one.name], one.shape[-1]), types[one.name].name) for one in self.model.tensors))  # fmt: skip

    @cached_property
    def _plain(self) -> dict[str, object]:
        return {key: value.value for key, value in self.model.metadata.items()}


def subject_named(text: str | None, reader: str | None) -> TailorSubject:
    """Return the model that a person means: an installed one, a GGUF file, or the folder of a checkpoint.

    `reader` names a smaller file of the same model that reads in its place. Raises UsageError for a model that is too coarse to be quantized
    again or a reader of another model, and what `find` raises.
    """
    folder = Path(text) if text else None
    stored = find(reader) if reader else None
    if folder is not None and folder.is_dir():
        model = open_model(folder, Options())
        _check_reader(model, stored)
        return TailorSubject(model, folder.resolve().name, stored, str(text))
    weights = find(text)
    model = open_model(weights.path, Options())
    good = {one.name for one in GOOD_SOURCES}
    if coarse := next((one for one in model.tensors if one.dtype not in good), None):
        raise UsageError(
            f"{weights.label} is quantized already ({coarse.name} is {coarse.dtype}); use its BF16 or Q8_0 file, or the checkpoint"
        )
    _check_reader(model, stored)
    return TailorSubject(model, weights.path.stem, stored or weights, weights.label)


def _check_reader(model: ModelSource, reader: StoredModel | None) -> None:
    """Raise UsageError where a reader's layers do not have the matrices of the model's: it is another model."""
    if reader is None:
        return
    theirs = {one.name: one.shape for one in open_model(reader.path, Options()).tensors}
    for one in model.tensors:
        if one.name.startswith("blk.") and theirs.get(one.name) != one.shape:
            has = f"is {theirs[one.name]}" if one.name in theirs else "is missing"
            raise UsageError(
                f"--reader {reader.label} is another model: {one.name} {has}, but must be {one.shape}; use a smaller file of the same model"
            )


__all__ = ["TailorSubject", "subject_named"]
