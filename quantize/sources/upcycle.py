"""Sparse upcycling: turn a dense Llama or Mistral into a Mixtral-style mixture of experts without training.

Every expert is the dense MLP itself (Komatsuzaki et al., https://arxiv.org/abs/2212.05055), so whichever are chosen, their weights sum
to one and the answer is the dense model's. The router is drawn at random with a fixed seed and sends tokens to all experts.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from quantize.errors import BadOption, Unsupported
from quantize.from_gguf import checkpoint_from_gguf
from quantize.safetensors_writer import to_bfloat16
from quantize.source import TensorSource
from quantize.sources.checkpoint import Checkpoint, Layout, Upcycling
from quantize.sources.hparams import MAX_EXPERTS, Hparams
from quantize.sources.rows import Float32s

_MLP = {"mlp.gate_proj.weight": "w1", "mlp.down_proj.weight": "w2", "mlp.up_proj.weight": "w3"}


def upcycle(checkpoint: Checkpoint, n_experts: int, n_used: int = 2, seed: int = 0) -> Checkpoint:
    """Return a view of a dense Hugging Face checkpoint as a Mixtral one: experts alias the MLP, no weight is copied.

    Raises BadOption for numbers of experts that cannot be, Unsupported for a checkpoint that has experts already, has MLP biases, or is not in the Hugging Face layout.
    """
    hparams = checkpoint.hparams
    if not 1 <= n_used <= n_experts <= MAX_EXPERTS:
        raise BadOption(
            f"{n_used} of {n_experts} experts is invalid; use 1 to {MAX_EXPERTS} experts and at most as many per token"
        )
    if checkpoint.layout is not Layout.HUGGING_FACE or hparams.n_expert or hparams.architecture != "llama":
        raise Unsupported(
            f"{checkpoint.folder.name} is not a dense Hugging Face checkpoint of a Llama or Mistral; upcycling needs one"
        )
    if biased := next(
        (name for name in checkpoint.tensors if ".mlp." in name and name.endswith(".bias")), None
    ):
        raise Unsupported(f"{checkpoint.folder.name} has {biased!r}; Mixtral experts have no biases")
    made = sorted(_tensors(checkpoint, hparams, n_experts, seed), key=lambda tensor: tensor.name)
    tensors = {tensor.name: tensor for tensor in made}
    config = {
        **checkpoint.config,
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": n_experts,
        "num_experts_per_tok": n_used,
        "num_key_value_heads": hparams.n_head_kv,
        "rope_theta": hparams.rope_base,
        "rms_norm_eps": hparams.rms_eps,
    }
    return replace(checkpoint, config=config, tensors=tensors, upcycling=Upcycling(n_experts, n_used, seed))


def router(layer: int, n_experts: int, n_embd: int, seed: int) -> Float32s:
    """Draw the router of one layer, (n_experts, n_embd), normal with variance 1 / n_embd, exact in bfloat16.

    RandomState is the one generator of numpy whose stream is promised never to change.
    """
    state = np.random.RandomState([seed % 2**32, layer])
    drawn = (state.standard_normal((n_experts, n_embd)) / np.sqrt(n_embd)).astype(np.float32)
    return (to_bfloat16(drawn).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _tensors(checkpoint: Checkpoint, hparams: Hparams, n_experts: int, seed: int) -> Iterator[TensorSource]:
    for name, tensor in checkpoint.tensors.items():
        head, _, tail = name.partition(".mlp.")
        part = _MLP.get(f"mlp.{tail}") if tail else None
        if part is None:
            yield tensor
            continue
        for expert in range(n_experts):
            yield replace(tensor, name=f"{head}.block_sparse_moe.experts.{expert}.{part}.weight")
    for layer in range(hparams.n_layer):
        yield _router_source(layer, router(layer, n_experts, hparams.n_embd, seed))


def _router_source(layer: int, weights: Float32s) -> TensorSource:
    def read(start: int, stop: int) -> Float32s:
        return weights[start:stop].copy()

    name = f"model.layers.{layer}.block_sparse_moe.gate.weight"
    return TensorSource(name, weights.shape, "BF16", read, f"router of layer {layer}")


__all__ = ["checkpoint_from_gguf", "router", "upcycle"]
