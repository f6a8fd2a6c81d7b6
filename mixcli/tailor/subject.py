"""The model that a file is made of: its weights, and a GGUF of it that can read texts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.store.store import StoredModel, find
from mixcli.system.console import Bar
from profiles.shape import ModelShape, model_shape
from quantize.conversion import Options, open_model, prepare_model
from quantize.ggml_types import row_bytes
from quantize.recipe import GOOD_SOURCES
from quantize.source import ModelSource
from quantize.tailor.choice import Types
from quantize.writer import execute

READER_TYPE = "Q8_0"  # of the file that a checkpoint is read with: twice as small as BF16, and nearly as good


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
    again, and what `find` raises.
    """
    folder = Path(text) if text else None
    stored = find(reader) if reader else None
    if folder is not None and folder.is_dir():
        model = open_model(folder, Options())
        return TailorSubject(model, folder.resolve().name, stored, str(text))
    weights = find(text)
    model = open_model(weights.path, Options())
    good = {one.name for one in GOOD_SOURCES}
    if coarse := next((one for one in model.tensors if one.dtype not in good), None):
        raise UsageError(
            f"{weights.label} is quantized already ({coarse.name} is {coarse.dtype}); name its BF16 or Q8_0 file, or the checkpoint"
        )
    return TailorSubject(model, weights.path.stem, stored or weights, weights.label)


def with_reader(subject: TailorSubject, beside: Path, bar: Bar) -> tuple[StoredModel, Path | None]:
    """Return the model that reads texts, and its file where that was made now, beside the result, to be removed afterwards."""
    if subject.reader is not None:
        return subject.reader, None
    path = beside.with_name(f"{beside.name}.reading.gguf")
    if not path.exists():
        plan = prepare_model(subject.model, path, Options(output_type=READER_TYPE))
        execute(plan, lambda at: bar.update(at.done, at.total, at.stage))
    return StoredModel(path), path


__all__ = ["TailorSubject", "subject_named", "with_reader"]
