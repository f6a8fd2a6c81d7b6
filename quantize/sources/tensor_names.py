"""The names of checkpoint tensors, Hugging Face's and Mistral's own, and where each belongs in a GGUF."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantize.errors import CorruptFile, Unsupported
from quantize.source import TensorSource
from quantize.sources.hparams import Hparams
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
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention.wq_a": "attn_q_a",
    "attention.q_a_norm": "attn_q_a_norm",
    "attention.wq_b": "attn_q_b",
    "attention.wkv_a_with_mqa": "attn_kv_a_mqa",
    "attention.kv_a_norm": "attn_kv_a_norm",
    "attention.wkv_b": "attn_kv_b",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "feed_forward.gate": "ffn_gate_inp",
    "gate": "ffn_gate_inp",
    "shared_experts.w1": "ffn_gate_shexp",
    "shared_experts.w2": "ffn_down_shexp",
    "shared_experts.w3": "ffn_up_shexp",
    "ffn_norm": "ffn_norm",
}
_EXPERT = {
    "w1": "ffn_gate_exps",
    "w2": "ffn_down_exps",
    "w3": "ffn_up_exps",
    "gate_proj": "ffn_gate_exps",
    "down_proj": "ffn_down_exps",
    "up_proj": "ffn_up_exps",
    "gate_up_proj": "ffn_gate_up_exps",
}
_IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")

# The part that sees, as far as a model has one
_VISION = ("vision_tower.", "vision_encoder.", "multi_modal_projector.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm.")  # fmt: skip

_LAYER = re.compile(r"(?:model\.)?layers\.(0|[1-9][0-9]{0,3})\.(.+?)(?:\.(weight|bias))?")
_EXPERT_NAME = re.compile(
    r"(?:(?:block_sparse_moe|feed_forward|mlp)\.)?experts\.(?:(0|[1-9][0-9]{0,3})\.)?(\w+)"
)

OTHER_MODEL = "configuration and weights belong to different models"

SHARED = ("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
DENSE = ("ffn_gate", "ffn_up", "ffn_down")
STACKS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
FUSED = ("ffn_gate_up_exps", "ffn_down_exps")
_LATENT = ("attn_q_a", "attn_q_a_norm", "attn_q_b", "attn_kv_a_mqa", "attn_kv_a_norm", "attn_kv_b")


@dataclass(frozen=True)
class Place:
    """Where a checkpoint's tensor belongs; `expert` is its place in a stacked tensor, None outside of one."""

    kind: str
    layer: int | None = None
    expert: int | None = None
    is_bias: bool = False

    @property
    def name(self) -> str:
        """Return the tensor's name in a GGUF."""
        name = f"{self.kind}.{'bias' if self.is_bias else 'weight'}"
        return name if self.layer is None else f"blk.{self.layer}.{name}"


def is_text(name: str, hparams: Hparams) -> bool:
    """Return whether a tensor takes part in the text model of a checkpoint."""
    if name.endswith(_IGNORED):
        return False
    return not (hparams.sees_images and name.removeprefix("model.").startswith(_VISION))


def place_of(name: str, hparams: Hparams) -> Place:
    """Return where a tensor of the text model belongs; Unsupported for one that no such model has."""
    plain = name.replace("language_model.", "") if hparams.sees_images else name
    base, _, suffix = plain.rpartition(".")
    if suffix == "weight" and base in _WHOLE:
        return Place(_WHOLE[base])
    if match := _LAYER.fullmatch(plain):
        layer, inner, ending = int(match[1]), match[2], match[3]
        if layer >= hparams.n_layer:
            raise CorruptFile(
                f"tensor {name!r} is of layer {layer}, but the model has {counted(hparams.n_layer, 'layer')}; "
                f"{OTHER_MODEL}"
            )
        kind, is_bias = _PER_LAYER.get(inner), ending == "bias"
        if kind and ending and kind in kinds_of(layer, hparams, is_bias=is_bias):
            return Place(kind, layer, is_bias=is_bias)
        if (of_expert := _EXPERT_NAME.fullmatch(inner)) and not is_bias and hparams.has_experts(layer):
            place = _of_expert(name, layer, of_expert[1], of_expert[2], hparams)
            if place:
                return place
    raise Unsupported(
        f"tensor {name!r} is not part of a Mixtral, Mistral or Llama text model; mixcli cannot convert this model"
    )


def _of_expert(name: str, layer: int, number: str | None, matrix: str, hparams: Hparams) -> Place | None:
    kind = _EXPERT.get(matrix)
    if kind is None or (number is not None and kind == "ffn_gate_up_exps"):
        return None
    expert = None if number is None else int(number)
    if expert is not None and expert >= hparams.n_expert:
        raise CorruptFile(
            f"tensor {name!r} is of expert {expert}, but the model has {hparams.n_expert}; {OTHER_MODEL}"
        )
    return Place(kind, layer, expert)


def kinds_of(layer: int, hparams: Hparams, *, is_bias: bool = False) -> Sequence[str]:
    """Name the tensors that a layer has, its experts apart; or those that may have a bias."""
    mla = hparams.mla
    if is_bias:
        dense = () if hparams.has_experts(layer) else DENSE
        return () if mla else ("attn_q", "attn_k", "attn_v", "attn_output", *dense)
    attention: tuple[str, ...] = _LATENT if mla else ("attn_q", "attn_k", "attn_v")
    feed_forward: tuple[str, ...] = DENSE
    if hparams.has_experts(layer):
        feed_forward = ("ffn_gate_inp", *(SHARED if hparams.routing else ()))
    return "attn_norm", *attention, "attn_output", "ffn_norm", *feed_forward


def shapes(hparams: Hparams) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every kind of tensor, of a stack that of one expert."""
    embd, head, mla = hparams.n_embd, hparams.head_size, hparams.mla
    routing = hparams.routing
    n_ff = routing.n_ff if routing else hparams.n_ff
    n_shared = n_ff * (routing.n_shared if routing else 0)
    found: dict[str, tuple[int | None, ...]] = {
        "token_embd": (hparams.n_vocab, embd),
        "output": (hparams.n_vocab, embd),
        "output_norm": (embd,),
        "attn_norm": (embd,),
        "ffn_norm": (embd,),
        "attn_q": (hparams.n_head * head, embd),
        "attn_k": (hparams.n_head_kv * head, embd),
        "attn_v": (hparams.n_head_kv * head, embd),
        "attn_output": (embd, hparams.n_head * (mla.head_v if mla else head)),
        "ffn_gate_inp": (hparams.n_expert, embd),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (hparams.n_ff, embd)),
        "ffn_down": (embd, hparams.n_ff),
        **dict.fromkeys(("ffn_gate_exps", "ffn_up_exps"), (n_ff, embd)),
        "ffn_gate_up_exps": (2 * n_ff, embd),
        "ffn_down_exps": (embd, n_ff),
        **dict.fromkeys(("ffn_gate_shexp", "ffn_up_shexp"), (n_shared, embd)),
        "ffn_down_shexp": (embd, n_shared),
    }
    if mla:
        found |= {
            "attn_q_a": (mla.q_rank, embd),
            "attn_q_a_norm": (mla.q_rank,),
            "attn_q_b": (hparams.n_head * mla.head_qk, mla.q_rank),
            "attn_kv_a_mqa": (mla.kv_rank + mla.head_rope, embd),
            "attn_kv_a_norm": (mla.kv_rank,),
            "attn_kv_b": (hparams.n_head * (mla.head_nope + mla.head_v), mla.kv_rank),
        }
    return found


def check_shape(tensor: TensorSource, expected: Sequence[int | None]) -> None:
    """Raise CorruptFile for a tensor of another shape; None stands for any number."""
    if len(tensor.shape) != len(expected) or any(
        n not in (None, m) for n, m in zip(expected, tensor.shape, strict=True)
    ):
        raise CorruptFile(
            f"{tensor.where} has the shape {list(tensor.shape)}, but the configuration needs {list(expected)}; "
            f"{OTHER_MODEL}"
        )
