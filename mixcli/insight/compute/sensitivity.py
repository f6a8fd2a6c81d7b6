"""Sum up what a squared error of each output of a matrix does to the residual stream, relative to the stream's own square.

The sums are entries beside those of the importance matrix, under the names that quantize/tailor/statistics.py reads, and
quantize/tailor/objective.py says what is made of them. A sum runs over the tokens of the text; r is the residual stream after the half layer,
w the weight of the router (1 in a dense layer), g and u the outputs of gate and up.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.insight.importance import ImportanceSums
from mixcli.llama import ggml
from mixcli.llama.observers import Matmul
from quantize.tailor.statistics import SENSITIVITY

Floats = NDArray[np.float32]
_FEED_FORWARD = re.compile(r"blk\.(\d+)\.ffn_(gate|up|gate_up|down)(_exps|_shexp)?\.weight")
_STREAM = re.compile(r"(ffn_inp|l_out|ffn_moe_weighted)-(\d+)")
_TINY = np.float32(1e-30)  # of a square, so that a token without any stream divides by something


MIN_ROWS = 16  # inputs of fewer rows are left out, as llama-imatrix does; those of experts never are


@dataclass(frozen=True)
class _Product:
    """The outputs of a product (inputs, rows), of which inputs for experts are tokens with each of their experts (tokens, experts used)."""

    outputs: Floats
    experts: NDArray[np.int32] | None
    n_matrices: int


class Sensitivity:
    """The MatmulObserver that keeps a layer's outputs of gate and up until the stream after it is there; `stream` is the tap for that."""

    def __init__(self, sums: ImportanceSums) -> None:
        self._sums = sums
        self._products: dict[str, _Product] = {}  # of the layer, by the name of the weights
        self._pair: dict[str, Floats] = {}  # the factors of gate and up, which are computed together
        self._router: Floats | None = None
        self.stream = _StreamTap(self)

    def accepts(self, weight: str, n_rows: int, *, is_stack: bool) -> bool:
        return _FEED_FORWARD.fullmatch(weight) is not None and (is_stack or n_rows >= MIN_ROWS)

    def observe(self, matmul: Matmul) -> None:
        is_down = ".ffn_down" in matmul.weight
        outputs = np.empty((0, 0), np.float32) if is_down else matmul.result()
        self._products[matmul.weight] = _Product(outputs, matmul.experts, matmul.shape[0])

    def route(self, weights: Floats) -> None:
        """Take the router's weights (tokens, experts used), as the experts' outputs are multiplied by them."""
        self._router = weights

    def after_attention(self, layer: int, squares: Floats) -> None:
        """Take the squares of the stream of each token after attention."""
        self._add(
            f"blk.{layer}.attn_output.weight",
            np.array([[(1 / squares).sum(dtype=np.float64)]]),
            [len(squares)],
        )

    def after_layer(self, squares: Floats) -> None:
        """Take the squares of the stream after the layer, and add up what its products cost."""
        for name, product in self._products.items():
            match = _FEED_FORWARD.fullmatch(name)
            assert match
            factors = self._factors(name, match[2], product.outputs)
            if product.experts is None:
                costs = (factors / squares[:, None]).sum(axis=0, dtype=np.float64)
                self._add(name, costs[None], [len(squares)])
            else:
                self._add_experts(name, factors, product.experts, product.n_matrices, squares)
        self._products.clear()
        self._pair.clear()
        self._router = None

    def _factors(self, name: str, part: str, outputs: Floats) -> Floats:
        """Return by what an error of each output is multiplied on its way through the activation, squared, (inputs, rows or 1)."""
        if part == "down":
            return np.ones((1, 1), np.float32)
        if part == "gate_up":
            return np.concatenate(_through_activation(*np.split(outputs, 2, axis=1)), axis=1)
        of_gate, of_up = (name.replace(f"ffn_{part}", f"ffn_{one}") for one in ("gate", "up"))
        if name not in self._pair:
            both = _through_activation(self._products[of_gate].outputs, self._products[of_up].outputs)
            self._pair = dict(zip((of_gate, of_up), both, strict=True))
        return self._pair.pop(name)

    def _add_experts(
        self, name: str, factors: Floats, experts: NDArray[np.int32], n_experts: int, squares: Floats
    ) -> None:
        n_tokens, n_used = experts.shape
        router = np.ones_like(experts, np.float32) if self._router is None else self._router
        scale = (np.square(router.reshape(n_tokens, n_used)) / squares[:, None]).ravel()
        chosen = experts.ravel()
        n_rows = factors.shape[1]
        sums = np.zeros((n_experts, n_rows))
        for expert in np.unique(chosen):
            mine = chosen == expert
            mine_factors = factors if len(factors) == 1 else factors[mine]
            sums[expert] = (mine_factors * scale[mine, None]).sum(axis=0, dtype=np.float64)
        self._add(name, sums, np.bincount(chosen, minlength=n_experts))

    def _add(self, name: str, sums: NDArray[np.float64], counts: "list[int] | NDArray[np.int64]") -> None:
        self._sums.add_sums(SENSITIVITY + name, sums, np.asarray(counts, np.int64))


def _through_activation(gate: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return the squares of what up * silu(gate) changes by with gate, and with up."""
    sigmoid = np.clip(gate, -80, 80)
    np.exp(np.negative(sigmoid, out=sigmoid), out=sigmoid)
    sigmoid += 1
    np.reciprocal(sigmoid, out=sigmoid)
    of_up = gate * sigmoid
    np.square(of_up, out=of_up)
    of_gate = 1 - sigmoid
    of_gate *= gate
    of_gate += 1
    sigmoid *= up
    of_gate *= sigmoid
    np.square(of_gate, out=of_gate)
    return of_gate, of_up


class _StreamTap:
    """The tap for the residual stream after each half layer, and for the router's weights."""

    def __init__(self, to: Sensitivity) -> None:
        self._to = to

    def wants(self, tensor: int) -> bool:
        return _STREAM.fullmatch(ggml.tensor_name(tensor)) is not None

    def see(self, tensor: int) -> None:
        match = _STREAM.fullmatch(ggml.tensor_name(tensor))
        assert match
        if match[1] == "ffn_moe_weighted":
            weights = ggml.sources(tensor)[1]
            n_used = ggml.head(weights).ne[1]
            self._to.route(ggml.tensor_values(weights).reshape(-1, n_used).astype(np.float32, copy=False))
            return
        stream = ggml.tensor_values(tensor).astype(np.float32, copy=False)
        squares = np.maximum(np.square(stream.reshape(-1, ggml.head(tensor).ne[0])).sum(axis=1), _TINY)
        if match[1] == "ffn_inp":
            self._to.after_attention(int(match[2]), squares)
        else:
            self._to.after_layer(squares)
