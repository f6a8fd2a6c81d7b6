"""Read the header of a whole model: one GGUF file or all its shards, local or remote."""

import re
from collections.abc import Sequence
from pathlib import Path

from mixcli.errors import IntegrityError, UnreadableFile
from profiles import dimensions
from profiles.dimensions import Dimensions, read_dimensions
from profiles.errors import BadModel
from profiles.shape import ModelShape, model_shape
from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.sources.gguf_header import ByteReader, GgufHeader, read_header
from quantize.sources.shards import open_shards, whole_header

_SPLIT_EXPERT = re.compile(r"^blk\.\d+\.ffn_(?:gate|up|down)\.\d+\.weight$")


def model_header(files: Sequence[tuple[str, Path | ByteReader]]) -> GgufHeader:
    """Read the headers of a model's shards, given as (name, file), as one: the first one's metadata, the tensors of all.

    `file_size` is the sum. Raises IntegrityError for a file that is not a GGUF or damaged, and for shards that do not belong together.
    """
    try:
        return whole_header([(name, read_header(file, name)) for name, file in files])
    except (CorruptFile, Unsupported) as error:
        raise IntegrityError(str(error)) from error


def header_of(paths: Sequence[Path]) -> GgufHeader:
    """Read the header of a model on this disk; a single path may be any of its shards."""
    try:
        if len(paths) == 1:
            return open_shards(paths[0]).whole
        return model_header([(path.name, path) for path in paths])
    except QuantizeError as error:
        kind = IntegrityError if error.exit_code == IntegrityError.exit_code else UnreadableFile
        raise kind(str(error)) from error


def file_type_of(header: GgufHeader) -> str:
    """Return the file type that a header names, else the type of most of its bytes; "GGUF" where it has no tensors."""
    from quantize.recipe import FILE_TYPES  # imported late: a load does not need it

    stated = header.get("general.file_type")
    if named := next(
        (name for name, number in FILE_TYPES.items() if number == stated and header.tensors), None
    ):
        return named
    sizes: dict[str, int] = {}
    for tensor in header.tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.n_bytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else "GGUF"


def is_known(header: GgufHeader) -> bool:
    """Return whether graph and tensors of a model are known to mixcli, so that header rules and plans are exact."""
    return dimensions.is_known(_plain(header))


def dimensions_of(header: GgufHeader, n_vocab: int) -> Dimensions:
    """Return the dimensions of a header with a vocabulary of that size; IntegrityError for one that lacks what every model declares."""
    try:
        return read_dimensions(_plain(header), {tensor.name for tensor in header.tensors}, n_vocab)
    except BadModel as error:
        raise _cannot_plan(header, error) from error


def shape_of(header: GgufHeader) -> ModelShape:
    """Return the planner's view of a header; IntegrityError for one that lacks what every model declares."""
    try:
        return model_shape(
            _plain(header),
            ((tensor.name, tensor.n_elements, tensor.n_bytes, tensor.type.name) for tensor in header.tensors),
        )
    except BadModel as error:
        raise _cannot_plan(header, error) from error


def _plain(header: GgufHeader) -> dict[str, object]:
    return {key: value.value for key, value in header.metadata.items()}


def _cannot_plan(header: GgufHeader, error: BadModel) -> IntegrityError:
    name = header.architecture[:40] or "nameless"
    return IntegrityError(f"this is a {name!r} model, which mixcli cannot plan: {error}")


def has_split_experts(header: GgufHeader) -> bool:
    """Return whether a model keeps every expert in a tensor of its own, as files of December 2023 do; llama.cpp no longer reads these."""
    return any(_SPLIT_EXPERT.match(tensor.name) for tensor in header.tensors)


def template_note(header: GgufHeader, name: str) -> tuple[str, ...]:
    """Return what a person should know of a model without a chat template, as quantize tells it of a checkpoint; nothing for one that has it."""
    if isinstance(header.get("tokenizer.chat_template"), str):
        return ()
    return (f"{name} has no chat template: it is treated as a base model, which continues text",)


def prompt_format(header: GgufHeader) -> str:
    """Return the name of the prompt format, by the marks in the chat template."""
    template = header.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return "none (text is continued)"
    marks = (("<|im_start|>", "ChatML"), ("[INST]", "Mistral [INST]"), ("<|start_header_id|>", "Llama 3"))
    return next((name for mark, name in marks if mark in template), "its own template")
