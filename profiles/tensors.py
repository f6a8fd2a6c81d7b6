"""The tensors that llama.cpp asks for, by architecture: GGUF names with shapes in numpy order (src/models/*.cpp, load_arch_tensors)."""

from collections.abc import Collection, Iterator

from profiles.dimensions import ARCHITECTURES, Dimensions, Mla

Tensor = tuple[str, tuple[int, ...]]


def tensors_of(one: Dimensions, found: Collection[str] = ()) -> Iterator[Tensor]:
    """Yield the tensors that a model needs; of those that may be missing, or may stand in another form, what is among the names `found`."""
    yield "token_embd.weight", (one.n_vocab, one.n_embd)
    yield "output_norm.weight", (one.n_embd,)
    if "output.weight" in found:
        yield "output.weight", (one.n_vocab, one.n_embd)
    if "rope_freqs.weight" in found and one.mla is None:
        yield "rope_freqs.weight", (one.head_dim_k // 2,)
    for layer in range(one.n_layer):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (one.n_embd,)
        yield from _latent_attention(one, one.mla, block) if one.mla else _attention(one, block, found)
        yield block + "ffn_norm.weight", (one.n_embd,)
        if one.n_expert and layer >= one.n_layer_dense:
            yield from _experts(one, block, found)
        else:
            yield from _feed_forward(one, block, found)


def _attention(one: Dimensions, block: str, found: Collection[str]) -> Iterator[Tensor]:
    q, k, v = one.n_head * one.head_dim_k, one.n_head_kv * one.head_dim_k, one.n_head_kv * one.head_dim_v
    if block + "attn_qkv.weight" in found:
        yield block + "attn_qkv.weight", (q + k + v, one.n_embd)
        yield from _present((block + "attn_qkv.bias", (q + k + v,)), found)
    else:
        for name, rows in (("q", q), ("k", k), ("v", v)):
            yield f"{block}attn_{name}.weight", (rows, one.n_embd)
            yield from _present((f"{block}attn_{name}.bias", (rows,)), found)
    yield block + "attn_output.weight", (one.n_embd, one.n_head * one.head_dim_v)
    yield from _present((block + "attn_output.bias", (one.n_embd,)), found)


def _latent_attention(one: Dimensions, mla: Mla, block: str) -> Iterator[Tensor]:
    q = one.n_head * mla.head_dim_k
    if mla.q_lora_rank:
        yield block + "attn_q_a_norm.weight", (mla.q_lora_rank,)
        yield block + "attn_q_a.weight", (mla.q_lora_rank, one.n_embd)
        yield block + "attn_q_b.weight", (q, mla.q_lora_rank)
    else:
        yield block + "attn_q.weight", (q, one.n_embd)
    yield block + "attn_kv_a_norm.weight", (mla.kv_lora_rank,)
    yield block + "attn_kv_a_mqa.weight", (mla.kv_lora_rank + mla.n_rot, one.n_embd)
    yield block + "attn_k_b.weight", (one.n_head, mla.kv_lora_rank, mla.head_dim_nope)
    yield block + "attn_v_b.weight", (one.n_head, mla.head_dim_v, mla.kv_lora_rank)
    yield block + "attn_output.weight", (one.n_embd, one.n_head * mla.head_dim_v)


def _experts(one: Dimensions, block: str, found: Collection[str]) -> Iterator[Tensor]:
    n, width, embd = one.n_expert, one.expert_width, one.n_embd
    yield block + "ffn_gate_inp.weight", (n, embd)
    if one.mla is not None:
        yield from _present((block + "exp_probs_b.bias", (n,)), found)
    if one.is_fused:
        yield block + "ffn_gate_up_exps.weight", (n, 2 * width, embd)
    else:
        yield block + "ffn_gate_exps.weight", (n, width, embd)
        yield block + "ffn_up_exps.weight", (n, width, embd)
    yield block + "ffn_down_exps.weight", (n, embd, width)
    if one.n_ff_shared:
        yield block + "ffn_gate_shexp.weight", (one.n_ff_shared, embd)
        yield block + "ffn_up_shexp.weight", (one.n_ff_shared, embd)
        yield block + "ffn_down_shexp.weight", (embd, one.n_ff_shared)


def _feed_forward(one: Dimensions, block: str, found: Collection[str]) -> Iterator[Tensor]:
    for name, shape in (
        ("gate", (one.n_ff, one.n_embd)),
        ("up", (one.n_ff, one.n_embd)),
        ("down", (one.n_embd, one.n_ff)),
    ):
        yield f"{block}ffn_{name}.weight", shape
        if one.mla is None:
            yield from _present((f"{block}ffn_{name}.bias", shape[:1]), found)


def _present(tensor: Tensor, found: Collection[str]) -> Iterator[Tensor]:
    if tensor[0] in found:
        yield tensor


def surplus_of(one: Dimensions, found: Collection[str]) -> list[str]:
    """Return the names that llama.cpp does not ask for: it refuses a file that has some (llama-model-loader.cpp, done_getting_tensors)."""
    asked = {name for name, _ in tensors_of(one, found)}
    return sorted(name for name in set(found) - asked if not _is_optional(one, name, asked))


def _is_optional(one: Dimensions, name: str, asked: Collection[str]) -> bool:
    """Return whether a tensor may stand beside those of tensors_of, which have what counts for a plan."""
    stem, _, kind = name.rpartition(".")
    if kind in (
        "scale",
        "input_scale",
    ):  # one number for a weight, or for each expert (llama-model.cpp, load_tensors)
        return name.startswith("blk.") and f"{stem}.weight" in asked
    block, _, part = stem.rpartition(".")
    if kind == "bias" and part in ("attn_q", "attn_k", "attn_v"):  # beside fused weights (create_tensor_qkv)
        return f"{block}.attn_qkv.weight" in asked and f"{block}.attn_qkv.bias" not in asked
    return one.mla is None and stem in ("rope_factors_long", "rope_factors_short")


__all__ = ["ARCHITECTURES", "surplus_of", "tensors_of"]
