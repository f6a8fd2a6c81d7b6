"""Models whose dimensions are known before anything is downloaded: profiles/models.toml."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files

from profiles.dimensions import SOFTMAX_ROUTER, Router, read_dimensions
from profiles.shape import ModelShape
from profiles.tensors import tensors_of

TEMPERATURE_SCALE = 0.1  # llama_4_scaling_beta of all of Mistral's models that have it


@dataclass(frozen=True)
class ModelFacts:
    """The dimensions of a model, as its config.json has them; `n_expert` is 0 for a dense one.

    `architecture` is GGUF's name for it. `n_head_dim` is the elements of one head, 0 where they are n_embd / n_head;
    `tied`: the output layer is the embedding. queries are scaled by position after `temperature_length` tokens, unless that is 0.
    With latent attention `kv_lora_rank` is not 0, `n_head_dim` counts the `n_rot` elements that carry the position, and `n_head_dim_v` is a value's.
    A mixture of many experts has `n_ff_expert` as the width of one, `n_expert_shared` more for every token, and `n_layer_dense` leading dense layers of width `n_ff`.
    `is_fused` says that the gate and up matrices of the experts are one tensor.
    """

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_expert: int
    n_expert_used: int
    n_vocab: int
    n_ctx_train: int
    architecture: str = "llama"
    n_head_dim: int = 0
    tied: bool = False
    temperature_length: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    n_rot: int = 0
    n_head_dim_v: int = 0
    n_ff_expert: int = 0
    n_expert_shared: int = 0
    n_layer_dense: int = 0
    is_fused: bool = False
    router: Router = SOFTMAX_ROUTER

    @property
    def head_dim(self) -> int:
        """Return the elements of one head's key."""
        return self.n_head_dim or self.n_embd // self.n_head

    def metadata(self) -> dict[str, int | float | str | bool]:
        """Return the GGUF metadata that these dimensions make."""
        keys: dict[str, int | float | str | bool] = {
            "block_count": self.n_layer,
            "context_length": self.n_ctx_train,
            "embedding_length": self.n_embd,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "rope.dimension_count": self.n_rot or self.head_dim,
        }
        if self.n_expert:
            keys |= {"expert_count": self.n_expert, "expert_used_count": self.n_expert_used}
        if self.kv_lora_rank:
            keys |= self._latent_keys()
        elif self.n_head_dim:
            keys |= {"attention.key_length": self.n_head_dim, "attention.value_length": self.n_head_dim}
        if self.temperature_length:
            length = (
                "attention.temperature_length"
                if self.kv_lora_rank
                else "rope.scaling.original_context_length"
            )
            keys |= {"attention.temperature_scale": TEMPERATURE_SCALE, length: self.temperature_length}
        if self.router.n_groups:
            keys |= {
                "expert_group_count": self.router.n_groups,
                "expert_group_used_count": self.router.n_groups_used,
            }
        if self.router.scale != 1.0:
            keys["expert_weights_scale"] = self.router.scale
        named = {f"{self.architecture}.{key}": value for key, value in keys.items()}
        return {"general.architecture": self.architecture, **named}

    def _latent_keys(self) -> dict[str, int | float | str | bool]:
        return {
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": self.q_lora_rank,
            "attention.kv_lora_rank": self.kv_lora_rank,
            "attention.key_length": self.kv_lora_rank + self.n_rot,
            "attention.value_length": self.kv_lora_rank,
            "attention.key_length_mla": self.head_dim,
            "attention.value_length_mla": self.n_head_dim_v,
            "expert_feed_forward_length": self.n_ff_expert,
            "expert_shared_count": self.n_expert_shared,
            "expert_gating_func": self.router.gating,
            "expert_weights_norm": self.router.normalizes,
            "leading_dense_block_count": self.n_layer_dense,
        }

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield every tensor's GGUF name and its shape in numpy order."""
        found = set() if self.tied else {"output.weight"}
        if self.is_fused:
            found.add("blk.0.ffn_gate_up_exps.weight")
        if self.router.is_biased:
            found |= {f"blk.{layer}.exp_probs_b.bias" for layer in range(self.n_layer)}
        return tensors_of(read_dimensions(self.metadata(), found, self.n_vocab), found)


@cache
def known_models() -> dict[str, ModelFacts]:
    """Return the dimensions by name: each table's own and those of the catalog."""
    tables = tomllib.loads(files("profiles").joinpath("models.toml").read_text("utf-8"))
    found: dict[str, ModelFacts] = {}
    for name, table in tables.items():
        names = table.pop("names")
        found |= dict.fromkeys((name, *names), ModelFacts(**table))
    return found


def facts_of(shape: ModelShape) -> ModelFacts:
    """Return the dimensions of a model that is known in one file type, to plan it in others."""
    names = {field.name for field in fields(ModelFacts)} & {field.name for field in fields(ModelShape)}
    alike = ModelFacts(**{name: getattr(shape, name) for name in names})
    if (mla := shape.mla) is None:
        return replace(
            alike,
            n_ff_expert=0,
            n_head_dim=0 if shape.head_dim_k == shape.n_embd // shape.n_head else shape.head_dim_k,
        )
    return replace(
        alike,
        q_lora_rank=mla.q_lora_rank,
        kv_lora_rank=mla.kv_lora_rank,
        n_rot=mla.n_rot,
        n_head_dim=mla.head_dim_k,
        n_head_dim_v=mla.head_dim_v,
        n_expert_shared=shape.n_ff_shared // shape.expert_width,
    )


__all__ = ["ModelFacts", "facts_of", "known_models"]
