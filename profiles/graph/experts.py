"""The feed-forward part of a layer: dense, or a router with its experts and shared experts (llama-graph.cpp, build_ffn and build_moe_ffn)."""

from profiles.graph.attention import Matrix
from profiles.graph.nodes import DOWN, GATE, UP, Builder, LayerHome, Tensor

SOFTMAX_OF_CHOSEN, SQRT_SOFTPLUS = 3, 4  # llama_expert_gating_func_type


def experts(graph: Builder, norm: Tensor, home: LayerHome) -> Tensor:
    """Add the routed experts of one layer."""
    shape, tokens = graph.shape, graph.batch.n_tokens
    used = shape.n_expert_used
    chosen, weights = _routed(graph, norm, home)
    norm = graph.view(norm)
    hidden = 4 * tokens * used * shape.expert_width
    if shape.is_fused:
        both = graph.node(2 * hidden, [graph.weight(home.gate, GATE), norm, chosen])
        both = graph.node(hidden, [graph.view(both, hidden), graph.view(both, hidden)])
    else:
        gate = graph.node(hidden, [graph.weight(home.gate, GATE), norm, chosen])
        up = graph.node(hidden, [graph.weight(home.up, UP), norm, chosen])
        both = graph.node(hidden, [gate, up])
    down = graph.node(graph.row * used, [graph.weight(home.down, DOWN), both, chosen])
    down = graph.node(down.size, [down, weights], over=(0,))
    parts = [graph.view(down, graph.row) for _ in range(used)]
    out = graph.node(graph.row, parts[:2])  # of a single expert a copy
    for part in parts[2:]:
        out = graph.node(graph.row, [out, part], over=(0,))
    return out


def _routed(graph: Builder, norm: Tensor, home: LayerHome) -> tuple[Tensor, Tensor]:
    """Add the router; returns the ids of the chosen experts and their weights."""
    shape, tokens, router = graph.shape, graph.batch.n_tokens, graph.shape.router
    used = shape.n_expert_used
    all_scores, used_scores = 4 * tokens * shape.n_expert, 4 * tokens * used
    scores = graph.node(all_scores, [graph.small_weight(home, shape.n_embd * shape.n_expert), norm])
    if router.gating == SQRT_SOFTPLUS:
        scores = graph.node(all_scores, [scores], over=(0,))
    if router.gating != SOFTMAX_OF_CHOSEN:
        scores = graph.node(all_scores, [scores], over=(0,))
    ranked = scores
    if router.is_biased:
        ranked = graph.node(all_scores, [scores, graph.small_weight(home, shape.n_expert)], over=(0,))
    if router.n_groups > 1:
        ranked = _in_best_groups(graph, ranked)
    seen = graph.view(scores)
    order = graph.node(all_scores, [ranked])
    chosen = graph.view(order, all_scores - 4 * (shape.n_expert - used))
    weights = graph.view(graph.node(used_scores, [seen, chosen]))
    if router.gating == SOFTMAX_OF_CHOSEN:
        weights = graph.view(graph.node(used_scores, [weights]))
    if router.normalizes:
        total = graph.node(4 * tokens, [weights])
        total = graph.node(4 * tokens, [total], over=(0,))
        weights = graph.view(graph.node(used_scores, [weights, total]))
    if router.scale != 1.0:
        weights = graph.node(used_scores, [weights])
    return chosen, weights


def _in_best_groups(graph: Builder, scores: Tensor) -> Tensor:
    """Mask the experts of all groups but the best, each of which counts with its two best experts."""
    tokens, router = graph.batch.n_tokens, graph.shape.router
    groups = graph.view(scores)
    best = graph.view(graph.node(scores.size, [groups]))
    sums = graph.node(8 * tokens * router.n_groups, [graph.view(groups), best])
    sums = graph.view(graph.node(4 * tokens * router.n_groups, [graph.view(sums)]))
    taken = graph.view(graph.node(sums.size, [sums]))
    kept = graph.node(scores.size // router.n_groups * router.n_groups_used, [groups, taken])
    masked = graph.node(scores.size, [groups])
    return graph.view(graph.node(0, [masked, kept, taken], view=True))


def feed_forward(graph: Builder, norm: Tensor, home: LayerHome) -> Tensor:
    """Add the feed-forward part of a dense model's layer, whose matrices may be on devices of their own."""
    weights = graph.weight(home.gate, GATE), graph.weight(home.up, UP), graph.weight(home.down, DOWN)
    return _swiglu(graph, norm, graph.shape.n_ff, *weights)


def fixed_feed_forward(graph: Builder, norm: Tensor, width: int, matrix: Matrix) -> Tensor:
    """Add shared experts, or the feed-forward part of a leading dense layer: they are where the layer's attention is."""
    n = graph.shape.n_embd * width
    return _swiglu(graph, norm, width, matrix(n), matrix(n), matrix(n))


def _swiglu(graph: Builder, norm: Tensor, width: int, gate_w: Tensor, up_w: Tensor, down_w: Tensor) -> Tensor:
    hidden = graph.rows(width)
    gate = graph.node(hidden, [gate_w, norm])
    up = graph.node(hidden, [up_w, norm])
    both = graph.node(hidden, [gate, up])
    return graph.node(graph.row, [down_w, both])


__all__ = ["experts", "feed_forward", "fixed_feed_forward"]
