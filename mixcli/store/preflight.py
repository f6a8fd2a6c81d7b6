"""Check a GGUF before llama.cpp loads it, and refuse files that would abort or crash it.

Reads the header only, with the standard library, so a front end can check a file without loading anything. The limits and rules are
those of the pinned llama.cpp (llama-vocab.cpp, models/*.cpp and the CPU kernels).
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from mixcli.errors import IntegrityError
from mixcli.store.header_trial import try_header
from mixcli.store.headers import dimensions_of, is_known
from mixcli.store.hyperparameters import check_hyperparameters
from mixcli.store.other_families import check_other_family, untested
from profiles.tensors import ARCHITECTURES, surplus_of, tensors_of
from quantize.errors import CorruptFile, Unsupported
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.ggml_types import GGUFValueType as Kind
from quantize.sources.gguf_header import GgufHeader, LazyArray
from quantize.sources.shards import open_shards
from quantize.wording import counted, shown

TOKENIZERS = ("llama", "gpt2")  # SentencePiece and byte-level BPE
OTHER_TOKENIZERS = ("gemma4",)  # of other families: BPE with SentencePiece's spaces
MERGING = ("gpt2", "gemma4")
MAX_VOCABULARY = 1 << 20
MAX_TEMPLATE = 1 << 18  # characters; the longest template known has about 30,000
_TOKENS = (
    "bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "cls", "prefix", "suffix", "middle",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip

DATA_ALIGNMENT = 32  # TENSOR_ALIGNMENT of ggml: a mapped buffer must begin there

# the type in which llama.cpp reads a key; with any other it gives up
_TYPES: dict[str, Kind] = {
    **dict.fromkeys(("general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre"), Kind.STRING),
    **dict.fromkeys(("general.file_type", "general.alignment", *(f"{one}.vocab_size" for one in ARCHITECTURES)), Kind.UINT32),
    **dict.fromkeys((f"tokenizer.ggml.{token}_token_id" for token in _TOKENS), Kind.UINT32),
    **dict.fromkeys((f"tokenizer.ggml.add_{what}" for what in ("bos_token", "eos_token", "sep_token", "space_prefix")), Kind.BOOL),
    **dict.fromkeys(("split.no", "split.count"), Kind.UINT16),
}  # fmt: skip
# the same for arrays: other numbers would be read past their end
_ITEMS: dict[str, tuple[Kind, ...]] = {
    "tokenizer.ggml.tokens": (Kind.STRING,),
    "tokenizer.ggml.merges": (Kind.STRING,),
    "tokenizer.ggml.scores": (Kind.FLOAT32,),
    "tokenizer.ggml.token_type": (Kind.INT32, Kind.UINT32),
}
_SPLIT_EXPERT = re.compile(r"^blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight$")
_VECTOR = re.compile(r"(_norm\.weight|\.bias|rope_freqs\.weight)$")
_NO_MATRIX = (Type.I8, Type.I16, Type.I32, Type.I64, Type.F64, Type.Q8_1, Type.Q8_K)


def check_gguf(path: Path) -> GgufHeader:
    """Read a model's header and check everything that can be known from it; any shard stands for all of its shards.

    The result lists the tensors of all shards. Raises IntegrityError with one sentence.
    """
    try:
        header = open_shards(path).whole
    except (CorruptFile, Unsupported) as error:
        raise IntegrityError(str(error)) from error
    check_header(header, path.name)
    return header


def check_header(header: GgufHeader, name: str) -> None:
    """Check a whole model's header that came from elsewhere, as `check_gguf` does; raises IntegrityError with one sentence."""
    _check_architecture(header, name)
    _check_contents(header, name)
    if not is_known(header):
        try_header(header, name)


def family_note(header: GgufHeader) -> tuple[str, ...]:
    """Return the note on a model's family; nothing for one that mixcli is tested with."""
    return () if is_known(header) else (untested(header.architecture),)


def _check_contents(header: GgufHeader, name: str) -> None:
    _check_types(header, name)
    if header.tensors and header.data_offset % DATA_ALIGNMENT:
        raise IntegrityError(
            f"{name} is aligned to {header.alignment} bytes, but llama.cpp needs {DATA_ALIGNMENT}; "
            f"realign it without loss: mixcli convert {name} -o new.gguf"
        )
    if is_known(header):
        check_hyperparameters(header, name)
    _check_vocabulary(header, name)
    _check_types_of_tensors(header, name)
    if is_known(header):
        _check_tensors(header, name)


def _check_types(header: GgufHeader, name: str) -> None:
    for key, value in header.metadata.items():
        if (kind := _TYPES.get(key)) is not None and value.type != kind:
            raise IntegrityError(
                f"{name} is damaged: {key} is {shown(value.value, 60)} of type {value.type.name}; it must be {kind.name}; "
                "use another file of this model"
            )
        if (kinds := _ITEMS.get(key)) and (value.type != Kind.ARRAY or value.item not in kinds):
            found = value.item if value.type == Kind.ARRAY and value.item is not None else value.type
            raise IntegrityError(
                f"{name} is damaged: {key} must be an array of {kinds[0].name}, not {found.name}; "
                "use another file of this model"
            )


def _check_architecture(header: GgufHeader, name: str) -> None:
    architecture = header.architecture
    if not architecture:
        raise IntegrityError(
            f"{name} has no general.architecture; it is damaged or not a model; use another file of this model"
        )
    if not is_known(header):
        check_other_family(header, name)
    if any(_SPLIT_EXPERT.match(tensor.name) for tensor in header.tensors):
        raise IntegrityError(
            f"{name} stores one tensor per expert, as files from December 2023 do, which llama.cpp no longer supports; "
            f"merge them without loss: mixcli convert {name} -o new.gguf"
        )


def _check_vocabulary(header: GgufHeader, name: str) -> None:
    kind, tokens = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.tokens")
    if kind is None or not isinstance(tokens, LazyArray) or not len(tokens):
        raise IntegrityError(f"{name} has no tokenizer; convert the model again with its tokenizer")
    kinds = TOKENIZERS if is_known(header) else (*TOKENIZERS, *OTHER_TOKENIZERS)
    if kind not in kinds:
        raise IntegrityError(
            f"{name} has a tokenizer of kind {shown(kind)}; mixcli supports {' and '.join(kinds)}; use another file of this model"
        )
    if len(tokens) > MAX_VOCABULARY:
        raise IntegrityError(
            f"{name} has {len(tokens):,} tokens; the limit is {MAX_VOCABULARY:,}; use another file of this model"
        )
    for key in ("scores", "token_type"):
        values = header.get(f"tokenizer.ggml.{key}")
        if values is not None and (not isinstance(values, LazyArray) or len(values) < len(tokens)):
            raise IntegrityError(
                f"{name} is damaged: tokenizer.ggml.{key} does not have a value for each of {len(tokens):,} tokens; "
                "use another file of this model"
            )
    if kind in MERGING and not isinstance(header.get("tokenizer.ggml.merges"), LazyArray):
        raise IntegrityError(
            f"{name} has a tokenizer of kind {kind} without merges; convert it again with its tokenizer"
        )
    read = list(_raw_strings(tokens))
    if any(
        b"\0" in text for text in read
    ):  # where llama.cpp, written in C++ behind a C interface, takes a text to end
        read = [text.partition(b"\0")[0] for text in read]
    texts, n_empty = set(read), read.count(b"")
    if len(texts) - (n_empty > 0) + n_empty != len(tokens):
        raise IntegrityError(
            f"{name} is damaged: {len(tokens) - len(texts):,} of its {len(tokens):,} tokens are duplicates; use another file of this model"
        )
    if kind == "llama" and not all(
        b"<0x%02X>" % byte in texts or bytes([byte]) in texts for byte in range(256)
    ):
        raise IntegrityError(
            f"{name} has a SentencePiece tokenizer without all 256 byte tokens, which llama.cpp requires; use another file of this model"
        )
    template = header.get("tokenizer.chat_template", "")
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise IntegrityError(
            f"{name} has an invalid chat template; it must be text of at most {MAX_TEMPLATE:,} characters"
        )


def _raw_strings(tokens: LazyArray) -> Iterator[bytes]:
    """Return the bytes of each string, without decoding: a vocabulary has up to 262,144."""
    raw, position, unpack = tokens.raw, 0, struct.Struct("<Q").unpack_from
    for _ in range(len(tokens)):
        start = position + 8
        position = start + unpack(raw, position)[0]
        yield raw[start:position]


def _check_types_of_tensors(header: GgufHeader, name: str) -> None:
    for tensor in header.tensors:
        if _VECTOR.search(tensor.name) and tensor.type != Type.F32:
            raise IntegrityError(
                f"{name}: tensor {tensor.name!r:.80} has type {tensor.type.name}; it must be F32; use another file of this model"
            )
        if tensor.type in _NO_MATRIX and tensor.name.endswith(".weight"):
            raise IntegrityError(
                f"{name}: tensor {tensor.name!r:.80} has type {tensor.type.name}, which llama.cpp cannot multiply; "
                "use another file of this model"
            )


def _check_tensors(header: GgufHeader, name: str) -> None:
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    dimensions = dimensions_of(header, len(header.get("tokenizer.ggml.tokens")))
    for tensor_name, shape in tensors_of(dimensions, shapes):
        if tensor_name not in shapes:
            raise IntegrityError(
                f"{name} lacks the tensor {tensor_name}; its conversion is incomplete: use another file of this model"
            )
        found = shapes[tensor_name]
        if found != shape and (*[1] * (4 - len(found)), *found) != (*[1] * (4 - len(shape)), *shape):
            raise IntegrityError(
                f"{name}: tensor {tensor_name} has the shape {found} instead of {shape}; use another file of this model"
            )
    if surplus := surplus_of(dimensions, shapes):
        raise IntegrityError(
            f"{name} has {counted(len(surplus), 'tensor')} that a {header.architecture} model does not have, such as {surplus[0]!r:.80}, "
            "and llama.cpp refuses it; use another file of this model"
        )
