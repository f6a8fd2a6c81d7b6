"""Mistral's models computed in numpy straight from a checkpoint: what the converted file must answer like.

Nothing of the conversion is used but the reader of tensors. Dense models with rotary positions (halves apart in Hugging Face's layout, in pairs
in Mistral's own), YaRN and attention's temperature; multi-head latent attention; mixtures with shared experts. Everything is
float64, and the whole text is computed at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantize.sources.checkpoint import open_checkpoint
from tests.support.newer_checkpoints import large3_name

Floats = NDArray[np.float64]
Config = dict[str, Any]

# params.json -> config.json
_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
}


def _config(folder: Path) -> Config:
    """The configuration in Hugging Face's terms, with the numbers of YaRN and the mixture beside the others."""
    if not (folder / "params.json").is_file():
        config = json.loads((folder / "config.json").read_text())
        config |= config.get("text_config", {})
        return config | config.get("rope_parameters", {})
    params = json.loads((folder / "params.json").read_text())
    config = params | {name: params[key] for key, name in _NAMES.items()}
    if moe := params.get("moe"):
        config |= {
            "first_k_dense_replace": moe["first_k_dense_replace"],
            "num_experts_per_tok": moe["num_experts_per_tok"],
        }
        config |= {"n_routed_experts": moe["num_experts"], "routed_scaling_factor": moe["routed_scale"]}
    if yarn := params.get("yarn"):
        config |= yarn | {"beta_fast": yarn["beta"], "beta_slow": yarn["alpha"]}
        config["llama_4_scaling_beta"] = params["llama_4_scaling"]["beta"]
    return config


@dataclass(frozen=True)
class ReferenceModel:
    """A checkpoint as a function from token ids to logits."""

    config: Config
    weights: dict[str, Floats]
    is_native: bool

    @classmethod
    def open(cls, folder: Path) -> "ReferenceModel":
        tensors = open_checkpoint(folder).tensors.items()
        weights = {
            name.replace("language_model.", ""): tensor.read(0, tensor.n_rows)
            .astype(np.float64)
            .reshape(tensor.shape)
            for name, tensor in tensors
            if len(tensor.shape) < 4
        }
        return cls(_config(folder), weights, (folder / "params.json").is_file())

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Return (tokens, vocabulary)."""
        x = self._weight("model.embed_tokens.weight")[list(tokens)]
        for layer in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{layer}."
            normed = self._norm(x, p + "input_layernorm.weight")
            x = x + (self._latent(p, normed) if "kv_lora_rank" in self.config else self._attention(p, normed))
            x = x + self._feed_forward(p, layer, self._norm(x, p + "post_attention_layernorm.weight"))
        return self._norm(x, "model.norm.weight") @ self._weight("lm_head.weight").T

    def continued(self, tokens: Sequence[int], n: int) -> list[int]:
        """Return the tokens and the `n` likeliest ones after them, one after the other."""
        result = list(tokens)
        for _ in range(n):
            result.append(int(self.logits(result)[-1].argmax()))
        return result

    def _weight(self, name: str) -> Floats:
        return self.weights[large3_name(name) if self.is_native else name]

    def _linear(self, x: Floats, name: str) -> Floats:
        return x @ self._weight(name + ".weight").T

    def _norm(self, x: Floats, name: str) -> Floats:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self._weight(name)

    def _attention(self, p: str, x: Floats) -> Floats:
        config, n = self.config, len(x)
        size = config["head_dim"]
        q, k, v = (self._linear(x, f"{p}self_attn.{kind}_proj").reshape(n, -1, size) for kind in "qkv")
        q, k = (self._rotated(one, in_pairs=self.is_native) for one in (q, k))
        share = config["num_attention_heads"] // config["num_key_value_heads"]
        mixed = self._mixed(q, np.repeat(k, share, 1), np.repeat(v, share, 1), size**-0.5)
        return self._linear(mixed, p + "self_attn.o_proj")

    def _latent(self, p: str, x: Floats) -> Floats:
        config, n = self.config, len(x)
        heads, nope, rope = (
            config["num_attention_heads"],
            config["qk_nope_head_dim"],
            config["qk_rope_head_dim"],
        )
        low = self._norm(self._linear(x, p + "self_attn.q_a_proj"), p + "self_attn.q_a_layernorm.weight")
        q = self._linear(low, p + "self_attn.q_b_proj").reshape(n, heads, nope + rope)
        latent = self._linear(x, p + "self_attn.kv_a_proj_with_mqa")
        low, k_rope = latent[:, : config["kv_lora_rank"]], latent[:, None, config["kv_lora_rank"] :]
        low = self._norm(low, p + "self_attn.kv_a_layernorm.weight")
        kv = self._linear(low, p + "self_attn.kv_b_proj").reshape(n, heads, -1)
        q_rope, k_rope = self._rotated(q[..., nope:], in_pairs=True), self._rotated(k_rope, in_pairs=True)
        q = np.concatenate([q[..., :nope], q_rope], -1)
        k = np.concatenate([kv[..., :nope], np.repeat(k_rope, heads, 1)], -1)
        magnitude = 1 + 0.1 * log(config["factor"])
        mixed = self._mixed(q, k, kv[..., nope:], (nope + rope) ** -0.5 * magnitude**2)
        return self._linear(mixed, p + "self_attn.o_proj")

    def _rotated(self, x: Floats, *, in_pairs: bool) -> Floats:
        """Rotate (tokens, heads, size) by positions."""
        config, size = self.config, x.shape[-1]
        i = np.arange(size // 2)
        frequencies = config["rope_theta"] ** (-2 * i / size)
        if "factor" in config:
            first, last = (self._turns(config[beta], size) for beta in ("beta_fast", "beta_slow"))
            low, high = max(np.floor(first), 0), min(np.ceil(last), size - 1)
            ramp = np.clip((i - low) / max(high - low, 0.001), 0, 1)
            frequencies = frequencies * (1 - ramp) + frequencies / config["factor"] * ramp
        angles = np.arange(len(x))[:, None, None] * frequencies
        a, b = (x[..., ::2], x[..., 1::2]) if in_pairs else np.split(x, 2, axis=-1)
        cos, sin = (self._magnitude() * of_angles for of_angles in (np.cos(angles), np.sin(angles)))
        turned = a * cos - b * sin, b * cos + a * sin
        return np.stack(turned, -1).reshape(x.shape) if in_pairs else np.concatenate(turned, -1)

    def _magnitude(self) -> float:
        """By what YaRN multiplies what it rotates, as transformers has it (modeling_rope_utils.py)."""
        config = self.config
        if "factor" not in config or config.get("apply_scale") is False:
            return 1.0
        if "attention_factor" in config:
            return float(config["attention_factor"])
        own, of_all = (
            1 + 0.1 * share * log(config["factor"])
            for share in (config.get("mscale", 0), config.get("mscale_all_dim", 0))
        )
        if config.get("mscale") and config.get("mscale_all_dim"):
            return own / of_all
        return 1 + 0.1 * log(config["factor"])

    def _turns(self, n: float, size: int) -> float:
        """The pair that turns `n` times within the trained context."""
        trained = self.config["original_max_position_embeddings"]
        return size * log(trained / (n * 2 * pi)) / (2 * log(self.config["rope_theta"]))

    def _mixed(self, q: Floats, k: Floats, v: Floats, scale: float) -> Floats:
        positions = np.arange(len(q))
        if beta := self.config.get("llama_4_scaling_beta"):
            steps = np.floor(positions / self.config["original_max_position_embeddings"])
            q = q * (1 + beta * np.log(1 + steps))[:, None, None]
        scores = np.einsum("ihd,jhd->hij", q, k) * scale
        scores[:, positions[:, None] < positions] = -np.inf
        return np.einsum("hij,jhd->ihd", _softmax(scores), v).reshape(len(q), -1)

    def _feed_forward(self, p: str, layer: int, x: Floats) -> Floats:
        config = self.config
        n_experts = config.get("n_routed_experts", 0)
        if not n_experts or layer < config["first_k_dense_replace"]:
            return self._mlp(x, p + "mlp.")
        weights = _softmax(self._linear(x, p + "mlp.gate"))
        chosen = np.argsort(-weights, -1)[:, : config["num_experts_per_tok"]]
        used = np.zeros_like(weights)
        np.put_along_axis(used, chosen, np.take_along_axis(weights, chosen, -1), -1)
        used *= config.get("routed_scaling_factor", 1) / used.sum(-1, keepdims=True)
        result = self._mlp(x, p + "mlp.shared_experts.")
        for expert in range(n_experts):
            result = result + used[:, expert, None] * self._expert(x, p, expert)
        return result

    def _expert(self, x: Floats, p: str, expert: int) -> Floats:
        if p + "mlp.experts.gate_up_proj" not in self.weights:
            return self._mlp(x, f"{p}mlp.experts.{expert}.")
        gate, up = np.split(x @ self.weights[p + "mlp.experts.gate_up_proj"][expert].T, 2, axis=-1)
        return _silu(gate) * up @ self.weights[p + "mlp.experts.down_proj"][expert].T

    def _mlp(self, x: Floats, prefix: str) -> Floats:
        gate, up = self._linear(x, prefix + "gate_proj"), self._linear(x, prefix + "up_proj")
        return self._linear(_silu(gate) * up, prefix + "down_proj")


def _softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _silu(x: Floats) -> Floats:
    return np.asarray(x / (1 + np.exp(-x)))
