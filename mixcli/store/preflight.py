"""Check a GGUF before llama.cpp loads it, and refuse files that would abort or crash it.

Reads the header only, with the standard library, so a front end can check a file without loading anything. The limits and rules are
those of the pinned llama.cpp (llama-model.cpp load_hparams, llama-vocab.cpp, models/llama.cpp and the CPU kernels).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from mixcli.errors import IntegrityError
from mixcli.store.header_trial import try_header
from mixcli.store.other_families import check_other_family, untested
from quantize.errors import CorruptFile, Unsupported
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.ggml_types import GGUFValueType as Kind
from quantize.sources.gguf_header import GgufHeader, LazyArray
from quantize.sources.shards import open_shards
from quantize.wording import shown

ARCHITECTURES = ("llama", "mistral3")  # whose rules stand here; other ones llama.cpp judges itself
TOKENIZERS = ("llama", "gpt2")  # SentencePiece and byte-level BPE
MAX_LAYERS, MAX_EXPERTS = 512, 1024
MAX_VOCABULARY = 1 << 20
MIN_CONTEXT = 64  # tokens; a chat template alone takes about half of them
MAX_TEMPLATE = 1 << 20  # bytes
_TOKENS = (
    "bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "cls", "prefix", "suffix", "middle",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")

DATA_ALIGNMENT = 32  # TENSOR_ALIGNMENT of ggml: a mapped buffer must begin there

# the type in which llama.cpp reads a key; with any other it gives up
_TYPES: dict[str, Kind] = {
    **dict.fromkeys(("general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre"), Kind.STRING),
    **dict.fromkeys(("general.file_type", "general.alignment", "llama.vocab_size"), Kind.UINT32),
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
_PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length", "expert_used_count")

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
    if header.architecture not in ARCHITECTURES:
        try_header(header, name)


def family_note(header: GgufHeader) -> tuple[str, ...]:
    """Return the note on a model's family; nothing for one that mixcli is tested with."""
    return () if header.architecture in ARCHITECTURES else (untested(header.architecture),)


def _check_contents(header: GgufHeader, name: str) -> None:
    _check_types(header, name)
    if header.tensors and header.data_offset % DATA_ALIGNMENT:
        raise IntegrityError(
            f"{name} is aligned to {header.alignment} bytes, but llama.cpp needs {DATA_ALIGNMENT}; "
            f"realign it without loss: mixcli convert {name} -o new.gguf"
        )
    sizes = _sizes(header, name) if header.architecture in ARCHITECTURES else None
    _check_vocabulary(header, name)
    _check_types_of_tensors(header, name)
    if sizes is not None:
        _check_tensors(header, sizes, name)


def _check_types(header: GgufHeader, name: str) -> None:
    for key, value in header.metadata.items():
        if (kind := _TYPES.get(key)) is not None and value.type != kind:
            raise IntegrityError(
                f"{name} is damaged: {key} is {shown(value.value, 60)} of type {value.type.name}; it must be {kind.name}"
            )
        if (kinds := _ITEMS.get(key)) and (value.type != Kind.ARRAY or value.item not in kinds):
            found = value.item if value.type == Kind.ARRAY and value.item is not None else value.type
            raise IntegrityError(
                f"{name} is damaged: {key} must be an array of {kinds[0].name}, but holds {found.name}"
            )


def _check_architecture(header: GgufHeader, name: str) -> None:
    architecture = header.architecture
    if not architecture:
        raise IntegrityError(f"{name} has no general.architecture; it is damaged or not a model")
    if architecture not in ARCHITECTURES:
        check_other_family(header, name)
    if any(_SPLIT_EXPERT.match(tensor.name) for tensor in header.tensors):
        raise IntegrityError(
            f"{name} stores one tensor per expert, as files from December 2023 do, which llama.cpp no longer supports; "
            f"merge them without loss: mixcli convert {name} -o new.gguf"
        )


@dataclass(frozen=True)
class _Sizes:
    """The numbers that the tensors' shapes follow from."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_size: int
    n_expert: int
    n_vocab: int


class _Reader:
    """Reads hyperparameters; every complaint names the key and its value."""

    def __init__(self, header: GgufHeader, name: str) -> None:
        self._header, self._name = header, name

    def refuse(self, key: str, rule: str) -> IntegrityError:
        value = self._header.get(self.key(key))
        found = "missing" if value is None else shown(value, 60)
        return IntegrityError(f"{self._name} is not a valid model: {self.key(key)} is {found}; {rule}")

    def key(self, key: str) -> str:
        return f"{self._header.architecture}.{key}"

    def whole(self, key: str, least: int, greatest: int, default: int | None = None) -> int:
        """A whole number, or the one that a value per layer repeats."""
        value: Any = self._header.get(self.key(key), default)
        stored = self._header.metadata.get(self.key(key))
        if isinstance(value, LazyArray):
            value = self._repeated(key, value)
        elif stored is not None and stored.type != Kind.UINT32:
            raise self.refuse(key, f"it has type {stored.type.name} and must be UINT32")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
            raise self.refuse(key, f"it must be a whole number from {least:,} to {greatest:,}")
        return value

    def _repeated(self, key: str, layers: LazyArray) -> object:
        n_layer = self._header.get(self.key("block_count"))
        if key not in _PER_LAYER or layers.item not in (Kind.INT32, Kind.UINT32) or len(layers) != n_layer:
            raise self.refuse(
                key, "it must be one whole number" + (f", or {n_layer} of them" if key in _PER_LAYER else "")
            )
        if any(n != layers[0] for n in layers):
            raise self.refuse(key, "it must be equal in all layers")
        return layers[0]

    def number(self, key: str, default: float | None = None) -> float:
        value: Any = self._header.get(self.key(key), default)
        stored = self._header.metadata.get(self.key(key))
        if stored is not None and stored.type != Kind.FLOAT32:
            raise self.refuse(key, f"it has type {stored.type.name} and must be FLOAT32")
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            raise self.refuse(key, "it must be finite and at least 0")
        return float(value)


def _sizes(header: GgufHeader, name: str) -> _Sizes:
    """Check what llama.cpp asserts about the hyperparameters."""
    read = _Reader(header, name)
    n_layer = read.whole("block_count", 1, MAX_LAYERS)
    n_embd = read.whole("embedding_length", 1, 1 << 20)
    n_ff = read.whole("feed_forward_length", 1, 1 << 24)
    read.whole("context_length", MIN_CONTEXT, 1 << 31)
    read.number("attention.layer_norm_rms_epsilon")
    read.number("rope.freq_base", 10000.0)
    n_head = read.whole("attention.head_count", 1, 1 << 16)
    n_head_kv = read.whole("attention.head_count_kv", 1, n_head, n_head)
    if n_head % n_head_kv:
        raise read.refuse("attention.head_count_kv", f"it must divide the {n_head} heads")
    head_size = read.whole("attention.key_length", 1, 1 << 16, max(n_embd // n_head, 1))
    if read.whole("attention.value_length", 1, 1 << 16, max(n_embd // n_head, 1)) != head_size:
        raise read.refuse("attention.value_length", f"it must equal the key length, {head_size}")
    if read.whole("rope.dimension_count", 1, 1 << 16, head_size) != head_size or head_size % 2:
        raise read.refuse("rope.dimension_count", f"it must be even and equal the head size, {head_size}")
    if header.get(read.key("rope.scaling.type"), "linear") not in ROPE_SCALINGS:
        raise read.refuse("rope.scaling.type", f"it must be one of {', '.join(ROPE_SCALINGS)}")
    n_expert = read.whole("expert_count", 0, MAX_EXPERTS, 0)
    read.whole("expert_used_count", 1 if n_expert else 0, n_expert, 0)
    n_group = read.whole("expert_group_count", 0, max(n_expert - 1, 0), 0)
    if n_group > 1:  # asserted in llama_model_base::load_hparams
        if n_expert % n_group:
            raise read.refuse("expert_group_count", f"it must divide the {n_expert} experts")
        read.whole("expert_group_used_count", 1, n_group - 1)
    read.whole("nextn_predict_layers", 0, n_layer - 1, 0)
    tokens = header.get("tokenizer.ggml.tokens")
    return _Sizes(
        n_layer,
        n_embd,
        n_ff,
        n_head,
        n_head_kv,
        head_size,
        n_expert,
        len(tokens) if isinstance(tokens, LazyArray) else 0,
    )


def _check_vocabulary(header: GgufHeader, name: str) -> None:
    kind, tokens = header.get("tokenizer.ggml.model"), header.get("tokenizer.ggml.tokens")
    if kind is None or not isinstance(tokens, LazyArray) or not len(tokens):
        raise IntegrityError(f"{name} has no tokenizer; convert the model again with its tokenizer")
    if kind not in TOKENIZERS:
        raise IntegrityError(
            f"{name} has a tokenizer of kind {shown(kind)}; mixcli supports {' and '.join(TOKENIZERS)}"
        )
    if len(tokens) > MAX_VOCABULARY:
        raise IntegrityError(
            f"{name} has {len(tokens):,} tokens, more than the limit of {MAX_VOCABULARY:,}; it is damaged"
        )
    for key in ("scores", "token_type"):
        values = header.get(f"tokenizer.ggml.{key}")
        if values is not None and (not isinstance(values, LazyArray) or len(values) < len(tokens)):
            raise IntegrityError(
                f"{name} is damaged: tokenizer.ggml.{key} does not have a value for each of {len(tokens):,} tokens"
            )
    if kind == "gpt2" and not isinstance(header.get("tokenizer.ggml.merges"), LazyArray):
        raise IntegrityError(
            f"{name} has a byte-level tokenizer without merges; convert it again with its tokenizer"
        )
    texts = set(_raw_strings(tokens))
    n_empty = sum(text == b"" for text in _raw_strings(tokens))
    if len(texts) - (n_empty > 0) + n_empty != len(tokens):
        raise IntegrityError(
            f"{name} is damaged: {len(tokens) - len(texts):,} of its {len(tokens):,} tokens are duplicates"
        )
    if kind == "llama" and not all(
        b"<0x%02X>" % byte in texts or bytes([byte]) in texts for byte in range(256)
    ):
        raise IntegrityError(
            f"{name} has a SentencePiece tokenizer without all 256 byte tokens, which llama.cpp requires"
        )
    template = header.get("tokenizer.chat_template", "")
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise IntegrityError(
            f"{name} has an invalid chat template; it must be text of at most {MAX_TEMPLATE:,} characters"
        )


def _raw_strings(tokens: LazyArray) -> Iterator[bytes]:
    """The bytes of each string, without decoding: a vocabulary has up to 262,144."""
    raw, position, unpack = tokens.raw, 0, struct.Struct("<Q").unpack_from
    for _ in range(len(tokens)):
        start = position + 8
        position = start + unpack(raw, position)[0]
        yield raw[start:position]


def _check_types_of_tensors(header: GgufHeader, name: str) -> None:
    for tensor in header.tensors:
        if _VECTOR.search(tensor.name) and tensor.type != Type.F32:
            raise IntegrityError(
                f"{name}: tensor {tensor.name!r:.80} has type {tensor.type.name}; it must be F32"
            )
        if tensor.type in _NO_MATRIX and tensor.name.endswith(".weight"):
            raise IntegrityError(
                f"{name}: tensor {tensor.name!r:.80} has type {tensor.type.name}, which llama.cpp cannot multiply"
            )


def _check_tensors(header: GgufHeader, sizes: _Sizes, name: str) -> None:
    if header.architecture != "llama":
        return
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for tensor_name, shape in _expected(sizes, shapes):
        if tensor_name not in shapes:
            raise IntegrityError(
                f"{name} lacks the tensor {tensor_name}; its conversion is incomplete, download it again"
            )
        found = shapes[tensor_name]
        if found != shape and (*[1] * (4 - len(found)), *found) != (*[1] * (4 - len(shape)), *shape):
            raise IntegrityError(f"{name}: tensor {tensor_name} has the shape {found} instead of {shape}")


def _expected(sizes: _Sizes, found: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors that a Llama or Mixtral needs, in numpy order, as models/llama.cpp asks for them."""
    n_embd, n_ff, n_expert = sizes.n_embd, sizes.n_ff, sizes.n_expert
    q, kv = sizes.n_head * sizes.head_size, sizes.n_head_kv * sizes.head_size
    yield "token_embd.weight", (sizes.n_vocab, n_embd)
    yield "output_norm.weight", (n_embd,)
    if "output.weight" in found:
        yield "output.weight", (sizes.n_vocab, n_embd)
    for layer in range(sizes.n_layer):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (n_embd,)
        if block + "attn_qkv.weight" not in found:
            yield block + "attn_q.weight", (q, n_embd)
            yield block + "attn_k.weight", (kv, n_embd)
            yield block + "attn_v.weight", (kv, n_embd)
        yield block + "attn_output.weight", (n_embd, q)
        yield block + "ffn_norm.weight", (n_embd,)
        if n_expert:
            yield block + "ffn_gate_inp.weight", (n_expert, n_embd)
            yield block + "ffn_gate_exps.weight", (n_expert, n_ff, n_embd)
            yield block + "ffn_up_exps.weight", (n_expert, n_ff, n_embd)
            yield block + "ffn_down_exps.weight", (n_expert, n_embd, n_ff)
        else:
            yield block + "ffn_gate.weight", (n_ff, n_embd)
            yield block + "ffn_up.weight", (n_ff, n_embd)
            yield block + "ffn_down.weight", (n_embd, n_ff)
