"""Map the names and layouts of checkpoint tensors to GGUF.

Four things change on the way. Hugging Face keeps the two halves of a rotary pair apart, GGUF keeps them side by side
(`interleave_halves`; models with latent attention have them so already). The experts of a layer become stacked tensors. Latent
attention's kv_b is split by heads, fused experts where llama.cpp has them apart. Norms and routers stay float32. Order is that of llama.cpp's converter: the checkpoint's own, the
experts where the last of their layer stands.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from quantize.errors import CorruptFile
from quantize.source import TensorSource
from quantize.sources.checkpoint import Checkpoint, Layout
from quantize.sources.hparams import Hparams
from quantize.sources.rope import interleave_halves, rope_factors
from quantize.sources.rows import Float32s
from quantize.sources.split import split_gate_up, split_kv
from quantize.sources.tensor_names import (
    FUSED,
    STACKS,
    Place,
    check_shape,
    is_text,
    kinds_of,
    place_of,
    shapes,
)


def map_tensors(checkpoint: Checkpoint, hparams: Hparams) -> list[TensorSource]:
    """Return the tensors of the GGUF file, in its order.

    Raises Unsupported for a tensor that no Mixtral, Mistral or Llama model has, CorruptFile for one that is missing
    or of the wrong shape.
    """
    wanted = shapes(hparams)
    result = rope_factors(hparams)
    experts: dict[int, _Experts] = {}
    for name, tensor in checkpoint.tensors.items():
        if not is_text(name, hparams):
            continue
        place = place_of(name, hparams)
        shape = wanted[place.kind]
        if place.kind.endswith("_exps") and place.expert is None:
            shape = (hparams.n_expert, *shape)
        check_shape(tensor, shape[:1] if place.is_bias else shape)
        if place.expert is not None and place.layer is not None:
            of_layer = experts.setdefault(place.layer, _Experts(place.layer, hparams))
            of_layer.parts[place.kind, place.expert] = tensor
            if of_layer.is_complete:
                result += of_layer.stacked()
        elif not (place.kind == "output" and hparams.mla and hparams.tied_embeddings):
            result += _converted(tensor, place, checkpoint.layout, hparams)
    _check_complete(result, experts.values(), hparams, checkpoint.folder.name)
    return result


def _converted(
    tensor: TensorSource, place: Place, layout: Layout, hparams: Hparams
) -> Iterable[TensorSource]:
    """Return what one tensor of a checkpoint becomes."""
    if place.kind == "attn_kv_b" and hparams.mla:
        keys, values = split_kv(tensor, hparams.n_head, hparams.mla)
        return _named(keys, replace(place, kind="attn_k_b")), _named(values, replace(place, kind="attn_v_b"))
    if (
        place.kind == "ffn_gate_up_exps" and not hparams.mla
    ):  # llama.cpp has them fused with latent attention only
        gate, up = split_gate_up(tensor)
        return _named(gate, replace(place, kind="ffn_gate_exps")), _named(
            up, replace(place, kind="ffn_up_exps")
        )
    if layout is Layout.HUGGING_FACE and place.kind in ("attn_q", "attn_k") and not hparams.mla:
        tensor = interleave_halves(tensor, hparams.head_size)
    return (_named(tensor, place),)


def _named(tensor: TensorSource, place: Place) -> TensorSource:
    keeps_f32 = len(tensor.shape) == 1 or place.kind == "ffn_gate_inp"
    return replace(tensor, name=place.name, dtype="F32" if keeps_f32 else tensor.dtype)


@dataclass(frozen=True)
class _Experts:
    """The single experts of one layer, by kind and number."""

    layer: int
    hparams: Hparams
    parts: dict[tuple[str, int], TensorSource] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.parts) == len(STACKS) * self.hparams.n_expert

    def stacked(self) -> list[TensorSource]:
        """Return the stacks in the order in which llama.cpp's converter has them."""
        kinds = ("ffn_down_exps", "ffn_gate_exps", "ffn_up_exps")
        if not self.hparams.routing:
            kinds = ("ffn_gate_exps", "ffn_down_exps", "ffn_up_exps")
        return [
            _stack(Place(kind, self.layer).name, [self.parts[kind, i] for i in range(self.hparams.n_expert)])
            for kind in kinds
        ]

    def first_missing(self) -> tuple[str, int] | None:
        """Return kind and number of an expert's matrix that is not there."""
        wanted = ((kind, expert) for expert in range(self.hparams.n_expert) for kind in STACKS)
        return next((part for part in wanted if part not in self.parts), None)


def _stack(name: str, experts: Sequence[TensorSource]) -> TensorSource:
    n_rows, n_columns = experts[0].shape

    def read(start: int, stop: int) -> Float32s:
        expert, row = divmod(start, n_rows)
        if stop <= (expert + 1) * n_rows:
            return experts[expert].read(row, row + stop - start)
        rows = np.empty((stop - start, n_columns), np.float32)
        at = start
        while at < stop:
            expert, row = divmod(at, n_rows)
            n = min(n_rows - row, stop - at)
            rows[at - start : at - start + n] = experts[expert].read(row, row + n)
            at += n
        return rows

    where = f"{experts[0].where} and its {len(experts) - 1} neighbors"
    return TensorSource(
        name,
        (len(experts), n_rows, n_columns),
        experts[0].dtype,
        read,
        where,
        file=lambda row: _file(experts[row // n_rows]),
    )


def _file(tensor: TensorSource) -> Path | None:
    return tensor.file(0) if tensor.file else None


def _check_complete(
    result: Sequence[TensorSource], experts: Iterable[_Experts], hparams: Hparams, folder: str
) -> None:
    there: dict[str, TensorSource] = {}
    for tensor in result:
        if tensor.name in there:
            raise CorruptFile(
                f"{tensor.where} and {there[tensor.name].where} are the same tensor under two names; use another repository"
            )
        there[tensor.name] = tensor
    for of_layer in experts:
        if missing := of_layer.first_missing():
            raise CorruptFile(
                f"{folder} lacks {missing[0].removesuffix('_exps')} of expert {missing[1]} in layer {of_layer.layer}; download the missing files"
            )
    wanted = ["token_embd.weight", "output_norm.weight"]
    for layer in range(hparams.n_layer):
        wanted += [Place(kind, layer).name for kind in _needed(layer, hparams, there)]
    if not hparams.tied_embeddings:
        wanted.append("output.weight")
    if lacking := [name for name in wanted if name not in there]:
        raise CorruptFile(
            f"{folder} lacks {len(lacking)} of the model's tensors, {lacking[0]} first; download the missing files"
        )


def _needed(layer: int, hparams: Hparams, there: Mapping[str, TensorSource]) -> Iterable[str]:
    """Name what a layer of the GGUF needs."""
    for kind in kinds_of(layer, hparams):
        yield from ("attn_k_b", "attn_v_b") if kind == "attn_kv_b" else (kind,)
    if hparams.has_experts(layer):
        yield from FUSED if Place("ffn_gate_up_exps", layer).name in there else STACKS
