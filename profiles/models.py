"""Models whose dimensions are known before anything is downloaded: profiles/models.toml."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

from profiles.shape import ModelShape


@dataclass(frozen=True)
class ModelFacts:
    """The dimensions of a model, as its config.json has them; `n_expert` is 0 for a dense one.

    `architecture` is GGUF's name for it: "llama", or "mistral3". `n_head_dim` is the elements of one head, 0 where they are n_embd / n_head;
    `tied`: the output layer is the embedding.
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

    @property
    def head_dim(self) -> int:
        """Return the elements of one head's key."""
        return self.n_head_dim or self.n_embd // self.n_head

    def metadata(self) -> dict[str, int | str]:
        """Return the GGUF metadata that these dimensions make."""
        keys: dict[str, int | str] = {
            "block_count": self.n_layer,
            "context_length": self.n_ctx_train,
            "embedding_length": self.n_embd,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
        }
        if self.n_expert:
            keys |= {"expert_count": self.n_expert, "expert_used_count": self.n_expert_used}
        if self.n_head_dim:
            keys |= {"attention.key_length": self.n_head_dim, "attention.value_length": self.n_head_dim}
        named = {f"{self.architecture}.{key}": value for key, value in keys.items()}
        return {"general.architecture": self.architecture, **named}

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield every tensor's GGUF name and its shape in numpy order."""
        embd, ff = self.n_embd, self.n_ff
        q, kv = self.head_dim * self.n_head, self.head_dim * self.n_head_kv
        yield "token_embd.weight", (self.n_vocab, embd)
        yield "output_norm.weight", (embd,)
        if not self.tied:
            yield "output.weight", (self.n_vocab, embd)
        stack, suffix = ((self.n_expert,), "_exps") if self.n_expert else ((), "")
        for layer in range(self.n_layer):
            block = f"blk.{layer}."
            yield f"{block}attn_norm.weight", (embd,)
            yield f"{block}ffn_norm.weight", (embd,)
            yield f"{block}attn_q.weight", (q, embd)
            yield f"{block}attn_k.weight", (kv, embd)
            yield f"{block}attn_v.weight", (kv, embd)
            yield f"{block}attn_output.weight", (embd, q)
            if self.n_expert:
                yield f"{block}ffn_gate_inp.weight", (self.n_expert, embd)
            yield f"{block}ffn_gate{suffix}.weight", (*stack, ff, embd)
            yield f"{block}ffn_up{suffix}.weight", (*stack, ff, embd)
            yield f"{block}ffn_down{suffix}.weight", (*stack, embd, ff)


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
    head_dim = 0 if shape.head_dim_k == shape.n_embd // shape.n_head else shape.head_dim_k
    alike = {one.name: getattr(shape, one.name) for one in fields(ModelFacts) if one.name != "n_head_dim"}
    return ModelFacts(n_head_dim=head_dim, **alike)


__all__ = ["ModelFacts", "facts_of", "known_models"]
