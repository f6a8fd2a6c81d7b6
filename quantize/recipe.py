"""Choose the GGML type of every tensor, by a dry run of llama.cpp itself.

llama_model_quantize knows the rules of each file type (which layers get more bits, what odd widths fall back to). It is run dry on a
stand-in file: the hyperparameters that the rules look at and the real tensor list, rows and experts cut to two each because no
rule counts them, and no data. So the rules are never written down twice.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from quantize.errors import BadOption, MalformedFile, NoSpace, QuantizeError, Unsupported
from quantize.file_layout import ALIGNMENT, header_bytes, pad
from quantize.ggml_types import PLAIN, GGMLQuantizationType, row_bytes
from quantize.source import ModelSource, TensorSource, Value, f32, u32
from quantize.wording import DISK_FULL, shown

_T = GGMLQuantizationType

# The names that llama-quantize takes -> llama_ftype of llama.h
FILE_TYPES: dict[str, int] = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q6_K": 18,
    "Q5_K_M": 17,
    "Q5_K_S": 16,
    "Q5_1": 9,
    "Q5_0": 8,
    "Q4_K_M": 15,
    "Q4_K_S": 14,
    "Q4_1": 3,
    "Q4_0": 2,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "Q3_K_L": 13,
    "Q3_K_M": 12,
    "Q3_K_S": 11,
    "IQ3_M": 27,
    "IQ3_S": 26,
    "IQ3_XS": 22,
    "IQ3_XXS": 23,
    "Q2_K": 10,
    "Q2_K_S": 21,
    "IQ2_M": 29,
    "IQ2_S": 28,
    "IQ2_XS": 20,
    "IQ2_XXS": 19,
    "IQ1_M": 31,
    "IQ1_S": 24,
    "TQ2_0": 37,
    "TQ1_0": 36,
    "MXFP4_MOE": 38,
    "Q2_0": 41,
    "Q1_0": 40,
}
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

# Source types that are near enough to the original weights to quantize from without asking.
GOOD_SOURCES = PLAIN | {_T.Q8_0}

# Types that ggml computes with and never writes; its quantizer has no case for them
_NOT_MADE = frozenset({_T.I8, _T.I16, _T.I32, _T.I64, _T.F64, _T.Q8_1, _T.Q8_K})
MAX_PATTERN = 1 << 10  # characters; std::regex recurses, and a long one would end the process
_PLAIN_NAME = re.compile(r"[\x21-\x7e]+")

# The hyperparameters that llama.cpp's loader and the type rules look at, each with the largest value that llama.cpp takes without aborting;
# of those in the second table the file may lack some.
_HPARAMS = {
    "block_count": 512,
    "context_length": 1 << 31,
    "embedding_length": 1 << 24,
    "attention.head_count": 1 << 16,
}
_OPTIONAL = {
    "feed_forward_length": 1 << 24,
    "attention.head_count_kv": 1 << 16,
    "attention.key_length": 1 << 16,
    "attention.value_length": 1 << 16,
    "rope.dimension_count": 1 << 16,
    "expert_count": 1024,
    "expert_used_count": 1024,
}
_LATENT = {
    "attention.q_lora_rank": 1 << 16,
    "attention.kv_lora_rank": 1 << 16,
    "attention.key_length_mla": 1 << 16,
    "attention.value_length_mla": 1 << 16,
    "expert_feed_forward_length": 1 << 24,
    "expert_shared_count": 1 << 16,
    "leading_dense_block_count": 512,
}
ARCHITECTURES = {"llama": {}, "mistral3": {}, "mistral4": _LATENT, "deepseek2": _LATENT}
_MAY_BE_ZERO = re.compile("expert|lora|leading")

_LOG_LINE = re.compile(
    r"^\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\S+), size =[^(\n]*(?:\((\S+)\))?$", re.MULTILINE
)


def file_type_name(name: str) -> str:
    """Return the canonical name of a file type such as "q4_k" -> "Q4_K_M"; Unsupported for no type at all."""
    upper = name.upper()
    upper = _ALIASES.get(upper, upper)
    if upper not in FILE_TYPES:
        raise Unsupported(f"{name} is not a quant; use {', '.join(FILE_TYPES)}")
    return upper


def tensor_type(name: str) -> GGMLQuantizationType:
    """Return the tensor type of a name such as "q8_0"; Unsupported for no type at all."""
    type_ = GGMLQuantizationType.__members__.get(name.upper())
    if type_ is None or type_ in _NOT_MADE:
        possible = ", ".join(t.name for t in _T if t not in _NOT_MADE)
        what = "not a tensor type" if type_ is None else "not a type for weights"
        raise Unsupported(f"{name[:40]} is {what}; use {possible}")
    return type_


def base_type(tensor: TensorSource) -> GGMLQuantizationType:
    """Return the type of a tensor before any quantizing.

    What a GGUF stores stays; of a checkpoint the vectors, norms and expert routers become F32 and all else BF16, as llama.cpp's
    converter writes them.
    """
    if tensor.read_raw is not None:
        return GGMLQuantizationType[tensor.dtype]
    return _T.F32 if stays_float(tensor) else _T.BF16


def stays_float(tensor: TensorSource) -> bool:
    """Return whether a tensor is never quantized: a vector, a norm, or an expert router."""
    return len(tensor.shape) == 1 or tensor.name.endswith("_norm.weight") or "ffn_gate_inp." in tensor.name


def choose_types(
    model: ModelSource,
    file_type: str,
    *,
    pure: bool = False,
    imatrix: bool = False,
    token_embedding_type: str | None = None,
    output_tensor_type: str | None = None,
    tensor_types: Iterable[tuple[str, str]] = (),
) -> dict[str, GGMLQuantizationType]:
    """Ask llama.cpp which type each tensor of `model` gets in a file of type `file_type`.

    `pure` gives all the same type, `imatrix` says that one will be used (some rules depend on it), `tensor_types` are pairs of a
    regular expression over tensor names and a type, the first match wins. Raises Unsupported for unknown names,
    CorruptFile for hyperparameters that cannot be, QuantizeError when llama.cpp refuses.
    """
    number = FILE_TYPES[file_type_name(file_type)]
    overrides = [(pattern, tensor_type(name)) for pattern, name in tensor_types]
    for pattern, _ in overrides:
        if len(pattern) > MAX_PATTERN or "\0" in pattern:
            raise BadOption(
                f"a pattern of {len(pattern):,} characters for tensor names; the limit is {MAX_PATTERN:,}, without zero bytes"
            )
    with _written(stand_in(model)) as path:
        return _dry_run(
            model,
            path,
            number,
            pure=pure,
            imatrix=imatrix,
            token_embedding_type=tensor_type(token_embedding_type) if token_embedding_type else None,
            output_tensor_type=tensor_type(output_tensor_type) if output_tensor_type else None,
            tensor_types=overrides,
        )


def choose_types_of_each(
    model: ModelSource, file_types: Iterable[str]
) -> dict[str, dict[str, GGMLQuantizationType]]:
    """Return what choose_types() returns for each of several file types; llama.cpp reads one stand-in for all of them."""
    numbers = {name: FILE_TYPES[file_type_name(name)] for name in file_types}
    with _written(stand_in(model)) as path:
        return {name: _dry_run(model, path, number) for name, number in numbers.items()}


def stored_types(model: ModelSource) -> dict[str, GGMLQuantizationType]:
    """Keep every tensor in the type it has: a copy, or a merge, without quantizing."""
    return {tensor.name: base_type(tensor) for tensor in model.tensors}


def checked_type(type_: GGMLQuantizationType, tensor: TensorSource) -> GGMLQuantizationType:
    """Return the type; Unsupported where a tensor's rows are not whole blocks of it."""
    try:
        row_bytes(type_, tensor.shape[-1])
    except ValueError as error:
        raise Unsupported(f"{tensor.name} cannot be {type_.name}: {error}") from None
    return type_


@dataclass(frozen=True)
class StandIn:
    """What llama.cpp's dry run reads of a model: a header, and how many bytes of data the file claims to have behind it."""

    header: bytes
    n_data: int


def stand_in(model: ModelSource) -> StandIn:
    """Return the stand-in of a model: equal ones get equal types. Raises what choose_types() raises for a model."""
    entries, offset = [], 0
    for tensor in model.tensors:
        if not _PLAIN_NAME.fullmatch(tensor.name):
            raise Unsupported(
                f"{tensor.where[:80]!a}: llama.cpp has no tensor called {tensor.name!a}; mixcli cannot quantize it"
            )
        type_ = base_type(tensor)
        shape = (*(min(n, 2) for n in tensor.shape[:-1]), tensor.shape[-1])
        entries.append((tensor.name, type_, shape, offset))
        rows = 1
        for n in shape[:-1]:
            rows *= n
        offset += pad(rows * row_bytes(type_, shape[-1]), ALIGNMENT)
    return StandIn(header_bytes(_hparams(model.metadata), entries), offset)


@contextmanager
def _written(stand_in: StandIn) -> Iterator[Path]:
    """Write a stand-in to a temporary file."""
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        path = Path(folder) / "header.gguf"
        try:
            with path.open("wb") as file:
                file.write(stand_in.header)
                file.truncate(len(stand_in.header) + stand_in.n_data)
        except OSError as error:
            raise (NoSpace if error.errno in DISK_FULL else QuantizeError)(
                f"a temporary copy of the header cannot be written in {folder}: {error.strerror}; set TMPDIR to another folder"
            ) from error
        yield path


def _dry_run(
    model: ModelSource,
    path: Path,
    number: int,
    *,
    pure: bool = False,
    imatrix: bool = False,
    token_embedding_type: GGMLQuantizationType | None = None,
    output_tensor_type: GGMLQuantizationType | None = None,
    tensor_types: Sequence[tuple[str, GGMLQuantizationType]] = (),
) -> dict[str, GGMLQuantizationType]:
    """Return the types that llama.cpp lists for the stand-in of a model; `number` is the file type's."""
    from quantize import ggml  # half a second of llama_cpp, only when quantizing begins

    log = ggml.dry_run(
        path,
        number,
        pure=pure,
        imatrix=imatrix,
        token_embedding_type=token_embedding_type,
        output_tensor_type=output_tensor_type,
        tensor_types=tensor_types,
    )
    types = {
        name: GGMLQuantizationType[(after or before).upper()]
        for name, before, after in _LOG_LINE.findall(log)
    }
    if types.keys() != {tensor.name for tensor in model.tensors}:
        raise QuantizeError(
            "llama.cpp's dry run lists different tensors from the model's: its log format has changed; install the llama-cpp-python that mixcli requires"
        )
    return {tensor.name: checked_type(types[tensor.name], tensor) for tensor in model.tensors}


def _hparams(metadata: Mapping[str, Value]) -> dict[str, Value]:
    """Pick the few keys that llama.cpp's loader and the type rules look at, in ranges on which it does not abort."""
    named = metadata.get("general.architecture")
    if named is None or named.value not in ARCHITECTURES:
        found = "none" if named is None else named.value
        raise Unsupported(
            f"the architecture is {found!r:.40}, but only {', '.join(ARCHITECTURES)} (Mistral, Mixtral, Llama) can be quantized"
        )
    kept, prefix = {"general.architecture": named}, f"{named.value}."
    for key, limit in {**_HPARAMS, **_OPTIONAL, **ARCHITECTURES[named.value]}.items():
        value = metadata.get(prefix + key)
        if value is None:
            if key not in _HPARAMS:
                continue
            raise MalformedFile(f"the model has no {prefix}{key}")
        least = 0 if _MAY_BE_ZERO.search(key) else 1
        number = _one(value.value)
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= limit:
            raise MalformedFile(f"{prefix}{key} is {shown(value.value)}; it must be {least} to {limit:,}")
        kept[prefix + key] = u32(number)
    n_expert, n_used = (
        kept[key].value if key in kept else 0
        for key in (f"{prefix}expert_count", f"{prefix}expert_used_count")
    )
    if n_used > n_expert or (n_expert and not n_used):
        raise MalformedFile(f"the model uses {n_used} of {n_expert} experts")
    key = f"{prefix}attention.layer_norm_rms_epsilon"
    epsilon = metadata.get(key)
    if epsilon is None or not isinstance(epsilon.value, float) or not isfinite(epsilon.value):
        found = "none" if epsilon is None else shown(epsilon.value)
        raise MalformedFile(f"the model's {key} is {found}; it must be a finite number")
    return kept | {key: f32(epsilon.value)}


def _one(value: object) -> object:
    """Return the one number that an array with a value for each layer repeats; anything else as it is."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and 0 < len(value) <= 1024:
        return value[0] if all(item == value[0] for item in value) else value
    return value


__all__ = [
    "FILE_TYPES",
    "GOOD_SOURCES",
    "base_type",
    "checked_type",
    "choose_types",
    "choose_types_of_each",
    "file_type_name",
    "stand_in",
    "stored_types",
    "tensor_type",
]
