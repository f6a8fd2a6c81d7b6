"""Compute the shape of a model in file types that are not installed, from its dimensions."""

from collections.abc import Sequence
from dataclasses import asdict

from mixcli.pull.tensor_types import types_of_each
from profiles.models import ModelFacts
from profiles.shape import ModelShape, model_shape
from quantize.ggml_types import row_bytes
from quantize.source import ModelSource, TensorSource, Value, f32, flag, text, u32

RMS_EPSILON = 1e-5  # of all Mistral models; only has to be there


def source_of(facts: ModelFacts) -> ModelSource:
    """Return a model with these dimensions as a checkpoint in BF16 would have it, without data."""

    def nothing(start: int, stop: int) -> object:
        raise NotImplementedError(f"rows {start} to {stop} requested of a model that is not installed")

    metadata = {key: _value(value) for key, value in facts.metadata().items()}
    metadata[f"{facts.architecture}.attention.layer_norm_rms_epsilon"] = f32(RMS_EPSILON)
    tensors = [
        TensorSource(name, shape, "BF16", nothing, name)  # type: ignore[arg-type]
        for name, shape in facts.tensors()
    ]
    return ModelSource(metadata, tensors, fingerprint=repr(asdict(facts)))


def _value(value: str | float | bool) -> Value:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return flag(value)
    return f32(value) if isinstance(value, float) else u32(value)


def unseen_shape(facts: ModelFacts, file_type: str) -> ModelShape:
    """Return the planner's view of a model in a file type, every tensor's type being llama.cpp's own choice (a dry run)."""
    return unseen_shapes(facts, (file_type,))[file_type]


def unseen_shapes(facts: ModelFacts, file_types: Sequence[str]) -> dict[str, ModelShape]:
    """Return the same for several file types, by their names."""
    source = source_of(facts)
    tensors = [(tensor.name, tensor.n_rows, tensor.shape[-1]) for tensor in source.tensors]
    return {
        file_type: model_shape(
            facts.metadata(),
            (
                (name, n_rows * n_cols, n_rows * row_bytes(type_, n_cols), type_.name)
                for (name, n_rows, n_cols), type_ in zip(tensors, types, strict=True)
            ),
        )
        for file_type, types in types_of_each(source, file_types).items()
    }
