"""The tensors of a graph, and the builder that puts them in llama.cpp's order.

Only sizes, order and dependencies are here; no weights and no arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.dimensions import Dimensions
from profiles.memory import KV_TYPES

QUANTIZED_KV = frozenset(name for name, (_, block) in KV_TYPES.items() if block > 1)
# of a layer, as far as another device computes with them; "dense" is all of a leading dense layer of a mixture
PARTS = ("gate", "up", "down", "attention", "dense")


# Stand for the tokens of a batch and the cells of a cache. Every size is a sum of bytes that are there anyhow, for each token, for each cell, and
# for each token with each cell; no such number comes near these, so all four can be read from the sum. A graph is then good for batches
# and contexts of any size.
ANY_TOKENS = 1 << 64
ANY_CELLS = ANY_TOKENS**2


def terms(size: int) -> tuple[int, int, int, int]:
    """Return the bytes of a size that are fixed (perhaps negative), for each token, for each cell, and for each token with each cell."""
    found = []
    for _ in range(4):
        term = (size + ANY_TOKENS // 2) % ANY_TOKENS - ANY_TOKENS // 2
        size = (size - term) // ANY_TOKENS
        found.append(term)
    fixed, per_token, per_cell, per_both = found
    return fixed, per_token, per_cell, per_both


@dataclass(frozen=True)
class Share:
    """Which share of which part of a layer a weight of the host is: `n` parts of `total`, of PARTS[part]."""

    part: int
    n: int = 1
    total: int = 1

    def of(self, bytes_parts: Sequence[int]) -> int:
        """Return its bytes; `bytes_parts` are those of PARTS."""
        return bytes_parts[self.part] * self.n // self.total


GATE, UP, DOWN = (Share(PARTS.index(part)) for part in ("gate", "up", "down"))


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
        srcs: list["Tensor"],
        over: tuple[int, ...] = (),
        home: int | None = None,
        *,
        view: bool = False,
        is_weight: bool = False,
        external: bool = False,
        share: Share | None = None,
    ) -> None:
        self.size, self.srcs, self.over, self.share = size, srcs, over, share
        self.is_weight, self.external = is_weight, external
        self.root: Tensor | None = (srcs[0].root or srcs[0]) if view else None
        self.device = (
            -1 if home is None else home
        )  # schedule.py chooses the others', and writes down the rest
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


@dataclass(frozen=True)
class BatchShape:
    """How a micro-batch of ANY_TOKENS meets a cache of ANY_CELLS; `copied` is the bytes of each cell that flash attention copies in f16."""

    flash_attn: bool
    type_k: str
    type_v: str
    copied: int = 0

    @property
    def n_tokens(self) -> int:
        """Return what stands for the number of tokens."""
        return ANY_TOKENS

    @property
    def n_kv(self) -> int:
        """Return what stands for the number of cells."""
        return ANY_CELLS

    @property
    def flash_extra(self) -> int:
        """Return the bytes of f16 copies of the whole cache."""
        return self.copied * ANY_CELLS


class Builder:
    """Nodes in the order of computation, and the inputs that the host fills; `offload` is a device that computes with the host's weights."""

    def __init__(self, shape: Dimensions, batch: BatchShape, host: int, offload: int | None) -> None:
        self.nodes: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.shape, self.batch, self.host, self._offload = shape, batch, host, offload
        self.is_offloaded = False  # whether all layers and the output are on GPUs
        self.row = self.rows(shape.n_embd)

    def rows(self, width: int) -> int:
        """Return the bytes of a row of that width, in 32 bits, for every token of the batch."""
        return 4 * self.batch.n_tokens * width

    def input(self, size: int) -> Tensor:
        tensor = Tensor(size, [], home=self.host)
        self.inputs.append(tensor)
        return tensor

    def node(
        self,
        size: int,
        srcs: list[Tensor],
        *,
        over: tuple[int, ...] = (),
        view: bool = False,
        home: int | None = None,
    ) -> Tensor:
        """Add a tensor that is computed from others, at its weight's home where it has one."""
        if home is None:
            for src in srcs:
                if src.is_weight:
                    is_lent = src.device == self.host and self._offload is not None and src.size
                    home = self._offload if is_lent else src.device
                    break
        node = Tensor(size, srcs, over, home, view=view)
        self.nodes.append(node)
        return node

    def view(self, of: Tensor, size: int | None = None) -> Tensor:
        return self.node(of.size if size is None else size, [of], view=True)

    def weight(self, home: int, share: Share | None = None, size: int = 1) -> Tensor:
        """Return a weight; with its share of a layer, or its size in bytes, where another device may compute with it."""
        if self._offload is None or home != self.host:
            share, size = None, 0
        return Tensor(size, [], home=home, is_weight=True, external=True, share=share)

    def small_weight(self, home: LayerHome, n_elements: int) -> Tensor:
        """Return a norm or a router, in 32 bits."""
        return self.weight(home.attention, size=4 * n_elements)

    def norm(self, x: Tensor, home: LayerHome, width: int | None = None) -> Tensor:
        """Normalize rows, those of the model's width where nothing else is said."""
        width = self.shape.n_embd if width is None else width
        # llama-context.cpp, graph_get_cb: with everything on GPUs a norm is computed where its layer is, else where its neighbors are
        at = home.attention if self.is_offloaded else None
        norm = self.node(self.rows(width), [x], over=() if x.root else (0,), home=at)
        return self.node(norm.size, [norm, self.small_weight(home, width)], over=(0,))
