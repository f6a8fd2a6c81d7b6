"""Map the names and layouts of checkpoint tensors to GGUF.

Three things change on the way. Hugging Face keeps the two halves of a rotary pair apart, GGUF keeps them side by side
(`interleave_halves`). The experts of a layer become three stacked tensors (w1 = gate, w2 = down, w3 = up). Norms and routers stay
float32. Order is that of llama.cpp's converter: the checkpoint's own, the experts where the last of their layer stands.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quantize.errors import CorruptFile, Unsupported
from quantize.source import TensorSource
from quantize.sources.checkpoint import Checkpoint, Layout
from quantize.sources.hparams import Hparams
from quantize.sources.rope import interleave_halves, rope_factors
from quantize.sources.rows import Float32s
from quantize.wording import counted

_WHOLE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
}
_PER_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "feed_forward.gate": "ffn_gate_inp",
    "ffn_norm": "ffn_norm",
}
_EXPERT = {"w1": "ffn_gate_exps", "w2": "ffn_down_exps", "w3": "ffn_up_exps"}
_IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")

_LAYER = re.compile(r"(?:model\.)?layers\.(0|[1-9][0-9]{0,3})\.(.+)\.(weight|bias)")
_EXPERT_NAME = re.compile(r"(?:block_sparse_moe|feed_forward)\.experts\.(0|[1-9][0-9]{0,3})\.(w[123])")


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint's tensor belongs; `expert` is None outside a stacked tensor."""

    name: str
    layer: int | None = None
    expert: int | None = None


def map_tensors(checkpoint: Checkpoint, hparams: Hparams) -> list[TensorSource]:
    """Return the tensors of the GGUF file, in its order.

    Raises Unsupported for a tensor that no Mixtral, Mistral or Llama model has, CorruptFile for one that is missing
    or of the wrong shape.
    """
    shapes = _shapes(hparams)
    result = rope_factors(hparams)
    experts: dict[int, dict[str, TensorSource]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(_IGNORED):
            continue
        place = _place(name, hparams)
        _check_shape(tensor, shapes[place.name.removesuffix(".bias")], place.name.endswith(".bias"))
        if place.expert is not None and place.layer is not None:
            of_layer = experts.setdefault(place.layer, {})
            of_layer[f"{place.name}.{place.expert}"] = tensor
            if len(of_layer) == 3 * hparams.n_expert:
                result += [_stack(place.layer, kind, of_layer, hparams.n_expert) for kind in _EXPERT.values()]
            continue
        if checkpoint.layout is Layout.HUGGING_FACE and place.name.split(".")[0] in ("attn_q", "attn_k"):
            result.append(_named(interleave_halves(tensor, hparams.head_size), place))
        else:
            result.append(_named(tensor, place))
    _check_complete(result, experts, hparams, checkpoint.folder.name)
    return result


def _stack(layer: int, kind: str, parts: Mapping[str, TensorSource], n_expert: int) -> TensorSource:
    experts = [parts[f"{kind}.{i}"] for i in range(n_expert)]
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

    where = f"{experts[0].where} and its {n_expert - 1} neighbors"
    return TensorSource(
        f"blk.{layer}.{kind}.weight",
        (n_expert, n_rows, n_columns),
        experts[0].dtype,
        read,
        where,
        file=lambda row: _file(experts[row // n_rows]),
    )


def _file(tensor: TensorSource) -> Path | None:
    return tensor.file(0) if tensor.file else None


def _named(tensor: TensorSource, place: _Place) -> TensorSource:
    base, _, suffix = place.name.partition(".")
    name = place.name if suffix else f"{place.name}.weight"
    if place.layer is not None:
        name = f"blk.{place.layer}.{name}"
    keeps_f32 = len(tensor.shape) == 1 or base == "ffn_gate_inp"
    return replace(tensor, name=name, dtype="F32" if keeps_f32 else tensor.dtype)


def _place(name: str, hparams: Hparams) -> _Place:
    base, _, suffix = name.rpartition(".")
    if suffix == "weight" and base in _WHOLE:
        return _Place(_WHOLE[base])
    if match := _LAYER.fullmatch(name):
        layer, inner, suffix = int(match[1]), match[2], match[3]
        if layer >= hparams.n_layer:
            raise CorruptFile(
                f"tensor {name!r} is of layer {layer}, but the model has {counted(hparams.n_layer, 'layer')}."
            )
        if inner in _PER_LAYER and _exists(_PER_LAYER[inner], suffix, hparams):
            kind = _PER_LAYER[inner]
            return _Place(kind if suffix == "weight" else f"{kind}.bias", layer)
        if suffix == "weight" and (of_expert := _EXPERT_NAME.fullmatch(inner)) and hparams.n_expert:
            expert = int(of_expert[1])
            if expert >= hparams.n_expert:
                raise CorruptFile(
                    f"tensor {name!r} is of expert {expert}, but the model has {hparams.n_expert}."
                )
            return _Place(_EXPERT[of_expert[2]], layer, expert)
    raise Unsupported(
        f"tensor {name!r} is not part of a Mixtral, Mistral or Llama text model; mixcli cannot convert this model."
    )


_DENSE_FFN = ("ffn_gate", "ffn_up", "ffn_down")


def _exists(kind: str, suffix: str, hparams: Hparams) -> bool:
    if (hparams.n_expert and kind in _DENSE_FFN) or (not hparams.n_expert and kind == "ffn_gate_inp"):
        return False
    return suffix == "weight" or not kind.endswith(("norm", "gate_inp"))


def _shapes(hparams: Hparams) -> dict[str, tuple[int | None, ...]]:
    embd, ff, head = hparams.n_embd, hparams.n_ff, hparams.head_size
    up, down = (ff, embd), (embd, ff)
    return {
        "token_embd": (hparams.n_vocab, embd),
        "output": (hparams.n_vocab, embd),
        "output_norm": (embd,),
        "attn_norm": (embd,),
        "ffn_norm": (embd,),
        "attn_q": (hparams.n_head * head, embd),
        "attn_k": (hparams.n_head_kv * head, embd),
        "attn_v": (hparams.n_head_kv * head, embd),
        "attn_output": (embd, hparams.n_head * head),
        "ffn_gate_inp": (hparams.n_expert, embd),
        **dict.fromkeys(("ffn_gate", "ffn_up", "ffn_gate_exps", "ffn_up_exps"), up),
        **dict.fromkeys(("ffn_down", "ffn_down_exps"), down),
    }


def _check_shape(tensor: TensorSource, expected: Sequence[int | None], is_bias: bool) -> None:
    wanted = expected[:1] if is_bias else expected
    if len(tensor.shape) != len(wanted) or any(
        n not in (None, m) for n, m in zip(wanted, tensor.shape, strict=True)
    ):
        raise CorruptFile(
            f"{tensor.where} has the shape {list(tensor.shape)}, but the configuration needs {list(wanted)}; "
            "configuration and weights belong to different models."
        )


def _check_complete(
    result: Sequence[TensorSource],
    experts: Mapping[int, Mapping[str, TensorSource]],
    hparams: Hparams,
    folder: str,
) -> None:
    there: dict[str, TensorSource] = {}
    for tensor in result:
        if tensor.name in there:
            raise CorruptFile(
                f"{tensor.where} and {there[tensor.name].where} are the same tensor under two names; download the model again."
            )
        there[tensor.name] = tensor
    for layer, parts in experts.items():
        wanted = (f"{kind}.{expert}" for expert in range(hparams.n_expert) for kind in _EXPERT.values())
        if missing := next((key for key in wanted if key not in parts), None):
            kind, _, expert = missing.rpartition(".")
            raise CorruptFile(
                f"{folder} lacks {kind.removesuffix('_exps')} of expert {expert} in layer {layer}; download the missing files."
            )
    ffn = (*_EXPERT.values(), "ffn_gate_inp") if hparams.n_expert else _DENSE_FFN
    kinds = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", *ffn)
    wanted_names = ["token_embd.weight", "output_norm.weight"]
    wanted_names += [f"blk.{layer}.{kind}.weight" for layer in range(hparams.n_layer) for kind in kinds]
    if not hparams.tied_embeddings:
        wanted_names.append("output.weight")
    if lacking := [name for name in wanted_names if name not in there]:
        raise CorruptFile(
            f"{folder} lacks {len(lacking)} of the model's tensors, {lacking[0]} first; download the missing files."
        )
