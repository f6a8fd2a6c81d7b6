"""The dataflow of one micro-batch through a llama model: which tensors llama.cpp computes, in which order, from which inputs.

Only sizes, order and dependencies are here; no weights and no arithmetic. The order is that of llama.cpp's graph (seen in its own
scheduler log, GGML_SCHED_DEBUG=2) for the architecture "llama", dense or mixture of experts. profiles/schedule.py runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.memory import KV_TYPES, bytes_cache
from profiles.shape import ModelShape

QUANTIZED_KV = frozenset(name for name, (_, block) in KV_TYPES.items() if block > 1)
PARTS = ("gate", "up", "down", "attention")  # of a layer, as far as another device computes with them
V_ROTATION = 64  # llama.cpp rotates the quantized values of a head in groups of 64


@dataclass(frozen=True)
class Share:
    """Which share of which part of a layer a weight of the host is: `n` parts of `total`, of PARTS[part]."""

    part: int
    n: int = 1
    total: int = 1

    def of(self, bytes_parts: Sequence[int]) -> int:
        """Return its bytes; `bytes_parts` are those of PARTS."""
        return bytes_parts[self.part] * self.n // self.total


class Tensor:
    """One tensor of the graph: `size` bytes, made of `srcs`.

    A view shares the memory of its root. `over` are the places of sources whose memory it may take when nothing else needs them. `home` is the
    device where it must be computed, because a weight or cache is there; None leaves it to the scheduler. An external tensor (a
    weight, a cache) has memory of its own.
    """

    __slots__ = (
        "block",
        "copies",
        "device",
        "external",
        "home",
        "is_weight",
        "kept",
        "over",
        "readers",
        "root",
        "share",
        "size",
        "srcs",
        "views",
    )

    def __init__(
        self,
        size: int,
        srcs: Sequence["Tensor"] = (),
        *,
        over: tuple[int, ...] = (),
        view: bool = False,
        home: int | None = None,
        is_weight: bool = False,
        external: bool = False,
        share: Share | None = None,
    ) -> None:
        self.share = share
        self.size, self.srcs, self.over, self.home = size, list(srcs), over, home
        self.is_weight, self.external = is_weight, external
        self.root: Tensor | None = (srcs[0].root or srcs[0]) if view else None
        # what schedule.py writes down while it works
        self.device = -1
        self.readers = self.views = 0
        self.kept = False
        self.block: int | None = None
        self.copies: dict[int, Tensor] | None = None


@dataclass(frozen=True)
class LayerHome:
    """The device (its number, the host last) of each part of a layer."""

    attention: int
    gate: int
    up: int
    down: int


GATE, UP, DOWN = (Share(PARTS.index(part)) for part in ("gate", "up", "down"))


@dataclass(frozen=True)
class BatchShape:
    """What a micro-batch of `n_tokens` looks like; `n_kv` is the cells of the cache, `flash_extra` bytes of f16 copies of the cache."""

    n_tokens: int
    n_kv: int
    flash_attn: bool
    type_k: str
    type_v: str
    flash_extra: int = 0


class Graph:
    """Nodes in the order of computation, and the inputs that the host fills."""

    def __init__(
        self,
        shape: ModelShape,
        batch: BatchShape,
        layers: Sequence[LayerHome],
        output: int,
        host: int,
        offload: int | None,
    ) -> None:
        """Build the graph; `output` is the device of the output layer, `offload` one that computes with the host's weights."""
        self.nodes: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self._shape, self._batch, self._host, self._offload = shape, batch, host, offload
        tokens, rows = batch.n_tokens, 4 * batch.n_tokens
        self._row = rows * shape.n_embd
        self._tokens = self._input(4 * tokens)
        self._input(self._row)  # embeddings instead of tokens: never read here, allocated all the same
        self._positions = self._input(4 * tokens)
        self._k_ids = self._input(8 * tokens)
        self._v_ids = self._input(
            8 * tokens * (1 if batch.flash_attn else shape.n_head_kv * shape.head_dim_v)
        )
        self._mask = self._input(tokens * batch.n_kv * (2 if batch.flash_attn else 4))
        self._k_rotation = (
            self._input(4 * k_rotation(shape) ** 2) if rotated(batch.type_k, shape.head_dim_k) else None
        )
        self._v_rotation = self._input(4 * V_ROTATION**2) if rotated(batch.type_v, shape.head_dim_v) else None
        self._out_ids = self._input(4 * tokens)
        x = self._node(self._row, [self._weight(host, size=0), self._tokens])
        for i, layer in enumerate(layers):
            x = self._layer(x, layer, is_last=i == len(layers) - 1)
        norm = self._node(self._row, [x], over=(0,))
        norm = self._node(self._row, [norm, self._weight(output, size=0)], over=(0,))
        self._node(rows * shape.n_vocab, [self._weight(output, size=0), norm])

    def _input(self, size: int) -> Tensor:
        tensor = Tensor(size, home=self._host)
        self.inputs.append(tensor)
        return tensor

    def _node(
        self,
        size: int,
        srcs: Sequence[Tensor],
        *,
        over: tuple[int, ...] = (),
        view: bool = False,
        home: int | None = None,
    ) -> Tensor:
        if home is None:
            weight = next((src for src in srcs if src.is_weight), None)
            if weight is not None:
                home = weight.home
                if home == self._host and self._offload is not None and weight.size:
                    home = self._offload
        node = Tensor(size, srcs, over=over, view=view, home=home)
        self.nodes.append(node)
        return node

    def _view(self, of: Tensor, size: int | None = None) -> Tensor:
        return self._node(of.size if size is None else size, [of], view=True)

    def _weight(self, home: int, share: Share | None = None, size: int = 1) -> Tensor:
        """Return a weight; with its share of a layer, or its size in bytes, where another device may compute with it."""
        if self._offload is None or home != self._host:
            share, size = None, 0
        return Tensor(size, home=home, is_weight=True, external=True, share=share)

    def _layer(self, x: Tensor, home: LayerHome, *, is_last: bool) -> Tensor:
        attended = self._attention(x, home)
        if is_last:  # only what is asked for goes on
            attended = self._node(self._row, [attended, self._out_ids])
            x = self._node(self._row, [x, self._out_ids])
        residual = self._node(self._row, [attended, x], over=(0, 1))
        norm = self._norm(residual, home)
        out = self._experts(norm, home) if self._shape.n_expert else self._feed_forward(norm, home)
        return self._node(self._row, [out, residual], over=(0, 1))

    def _norm(self, x: Tensor, home: LayerHome) -> Tensor:
        norm = self._node(self._row, [x], over=(0,))
        return self._node(self._row, [norm, self._small_weight(home, self._shape.n_embd)], over=(0,))

    def _small_weight(self, home: LayerHome, n_elements: int) -> Tensor:
        """Return a norm or a router, in 32 bits."""
        return self._weight(home.attention, size=4 * n_elements)

    def _attention(self, x: Tensor, home: LayerHome) -> Tensor:
        shape, batch = self._shape, self._batch
        n_q, n_out = (shape.n_head * dim for dim in (shape.head_dim_k, shape.head_dim_v))
        n_k, n_v = (shape.n_head_kv * dim for dim in (shape.head_dim_k, shape.head_dim_v))

        def matrix(n: int) -> Tensor:  # its share of all four, as if they had the same type
            return self._weight(home.attention, Share(PARTS.index("attention"), n, n_q + n_k + n_v + n_out))

        rows = 4 * batch.n_tokens
        size_q, size_out = rows * n_q, rows * n_out
        norm = self._norm(x, home)

        def project(n: int) -> Tensor:
            return self._view(self._node(rows * n, [matrix(n), norm]))

        q = project(n_q)
        q = self._rotate(self._node(size_q, [q, self._positions]), self._k_rotation)
        v = project(n_v)
        v = self._rotate(v, self._v_rotation)
        k = project(n_k)
        k = self._rotate(self._node(k.size, [k, self._positions]), self._k_rotation)
        cache_k, cache_v = (
            Tensor(bytes_cache(batch.n_kv, shape.n_head_kv, dim, kv_type), home=home.attention, external=True)
            for dim, kv_type in ((shape.head_dim_k, batch.type_k), (shape.head_dim_v, batch.type_v))
        )
        self._node(0, [cache_k, self._view(k), self._k_ids], view=True, home=home.attention)
        self._node(0, [cache_v, self._view(v), self._v_ids], view=True, home=home.attention)
        seen = self._view(self._view(q))
        if batch.flash_attn:
            out = self._node(size_out + batch.flash_extra, [seen, cache_k, cache_v, self._mask])
            out = self._view(out, size_out)
            out = self._rotate(out, self._v_rotation)
        else:
            scores = self._node(4 * batch.n_kv * batch.n_tokens * shape.n_head, [cache_k, seen])
            scores = self._node(scores.size, [scores, self._mask], over=(0,))
            out = self._node(size_out, [cache_v, scores])
            out = self._rotate(out, self._v_rotation)
            out = self._node(size_out, [self._view(out)])
        return self._node(self._row, [matrix(n_out), out])

    def _rotate(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        return x if rotation is None else self._view(self._node(x.size, [rotation, self._view(x)]))

    def _experts(self, norm: Tensor, home: LayerHome) -> Tensor:
        shape, tokens = self._shape, self._batch.n_tokens
        used = shape.n_expert_used
        all_scores, used_scores = 4 * tokens * shape.n_expert, 4 * tokens * used
        scores = self._node(all_scores, [self._small_weight(home, shape.n_embd * shape.n_expert), norm])
        probabilities = self._node(all_scores, [scores], over=(0,))
        seen = self._view(probabilities)
        order = self._node(all_scores, [probabilities])
        chosen = self._view(order, all_scores - 4 * (shape.n_expert - used))
        weights = self._view(self._node(used_scores, [seen, chosen]))
        total = self._node(4 * tokens, [weights])
        total = self._node(4 * tokens, [total], over=(0,))
        weights = self._node(used_scores, [weights, total])
        weights = self._view(weights)
        norm = self._view(norm)
        hidden = used_scores * shape.n_ff
        gate = self._node(hidden, [self._weight(home.gate, GATE), norm, chosen])
        up = self._node(hidden, [self._weight(home.up, UP), norm, chosen])
        both = self._node(hidden, [gate, up])
        down = self._node(self._row * used, [self._weight(home.down, DOWN), both, chosen])
        down = self._node(down.size, [down, weights], over=(0,))
        parts = [self._view(down, self._row) for _ in range(used)]
        out = self._node(self._row, parts[:2])
        for part in parts[2:]:
            out = self._node(self._row, [out, part], over=(0,))
        return out

    def _feed_forward(self, norm: Tensor, home: LayerHome) -> Tensor:
        hidden = 4 * self._batch.n_tokens * self._shape.n_ff
        gate = self._node(hidden, [self._weight(home.gate, GATE), norm])
        up = self._node(hidden, [self._weight(home.up, UP), norm])
        both = self._node(hidden, [gate, up])
        return self._node(self._row, [self._weight(home.down, DOWN), both])


def rotated(kv_type: str, head_dim: int) -> bool:
    """Return whether llama.cpp rotates what it stores in a cache of that type (llama-kv-cache.cpp: quantized, heads of 64s)."""
    return kv_type in QUANTIZED_KV and head_dim % 64 == 0


def k_rotation(shape: ModelShape) -> int:
    """Return the side of the rotation of keys: the largest power of two that divides a head (llama-kv-cache.cpp)."""
    side = 64
    while shape.head_dim_k % (2 * side) == 0:
        side *= 2
    return side
