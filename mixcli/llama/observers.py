"""See intermediate tensors while a context computes: by their names, or as the inputs of matrix products.

llama.cpp asks before each node of the graph whether it is wanted (cb_eval), and shows it when it is computed. Every wanted node cuts the
graph, so only what is needed should be wanted.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from llama_cpp import llama_cpp as C
from numpy.typing import NDArray

from mixcli.llama import ggml


class Tap(Protocol):
    """What a context calls for each node of its graph; tensors are pointers to ggml_tensor."""

    def wants(self, tensor: int) -> bool:
        """Return whether a node is to be shown; called before it is computed."""

    def see(self, tensor: int) -> None:
        """Look at a wanted node, which is computed now."""


class GraphDone(Exception):
    """What a tap raises from `see` when it needs no more of a graph: the rest is not computed, so there are no logits."""


class EvalCallback:
    """cb_eval for a tap; any other error that it raises stops the graph and waits in `error` for the decode to raise it."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.native = C.ggml_backend_sched_eval_callback(self._call)
        self.error: BaseException | None = None

    def _call(self, tensor: int, ask: bool, _: object) -> bool:
        """Return whether the tensor is wanted when asked, and whether to continue the graph when it is shown."""
        try:
            if ask:
                return self._tap.wants(tensor)
            self._tap.see(tensor)
        except GraphDone:
            return False
        except BaseException as error:  # must not be lost between the C frames; decode raises it
            self.error = error
            return False
        return True


class TensorObserver(Protocol):
    """Observe intermediate tensors by their names."""

    def accepts(self, name: str) -> bool:
        """Return whether the tensor of this name ("ffn_moe_topk-7") is to be seen; asked once a name."""

    def observe(self, name: str, values: "NDArray[np.generic]") -> None:
        """Take a copy of its values, in numpy order."""


class NamedTensors:
    """The tap of a TensorObserver: a name is asked about once, so that an unwanted tensor costs one dictionary look."""

    def __init__(self, observer: TensorObserver) -> None:
        self._observer = observer
        self._wanted: dict[str, bool] = {}

    def wants(self, tensor: int) -> bool:
        name = ggml.tensor_name(tensor)
        if name not in self._wanted:
            self._wanted[name] = self._observer.accepts(name)
        return self._wanted[name]

    def see(self, tensor: int) -> None:
        self._observer.observe(ggml.tensor_name(tensor), ggml.tensor_values(tensor))


@dataclass(frozen=True)
class Matmul:
    """A product of weights with an input that is computed now.

    `weight` is the tensor's name in the file ("blk.3.attn_q.weight"). `shape` are ggml's third and fourth dimensions of the weights,
    (1, 1) for a plain matrix; a stack of experts has their number first. `values` is the input, float32 of shape (n3, n2, rows, columns),
    which is valid while the product is observed: it may be the model's own memory.
    For a stack of experts rows are the experts used (1 where all get the same input), n2 are tokens, and `experts` has shape (tokens,
    experts used). `node` is the pointer of the result, whose values can be read while the product is observed.
    """

    weight: str
    shape: tuple[int, int]
    values: "NDArray[np.float32]"
    experts: "NDArray[np.int32] | None" = None
    node: int = 0

    def result(self) -> "NDArray[np.float32]":
        """Return a copy of the products, float32 (inputs, rows of the weights); for experts an input is a token with one of its experts."""
        values = ggml.tensor_values(self.node)
        return values.reshape(-1, ggml.head(self.node).ne[0]).astype(np.float32, copy=False)


class MatmulObserver(Protocol):
    """Observe the inputs of matrix products with weights."""

    def accepts(self, weight: str, n_rows: int, *, is_stack: bool) -> bool:
        """Return whether the input of this product is to be seen; `n_rows` are rows of the input, `is_stack` means experts."""

    def observe(self, matmul: Matmul) -> None:
        """Take the input, or what is made of it; products with one input, one after the other, share one array of values."""


class Matmuls:
    """The tap of a MatmulObserver."""

    def __init__(self, observer: MatmulObserver) -> None:
        self._observer = observer
        self._last: tuple[int, NDArray[np.float32]] | None = None  # the input that was shown last

    def wants(self, tensor: int) -> bool:
        if self._last is not None and tensor == self._last[0]:
            self._last = None  # it is computed again: another micro-batch
        op = ggml.matmul_op(tensor)
        if op is None:
            return False
        weights, values = ggml.sources(tensor)[:2]
        is_stack = op == ggml.MATMUL_OF_EXPERTS
        head = ggml.head(values)
        if ggml.DTYPES.get(head.type) is not np.float32:
            return False
        return self._observer.accepts(_weight_name(weights), int(head.ne[1]), is_stack=is_stack)

    def see(self, tensor: int) -> None:
        weights, values, *others = ggml.sources(tensor)
        shape = ggml.head(weights).ne
        experts = None
        if ggml.matmul_op(tensor) == ggml.MATMUL_OF_EXPERTS:
            found = ggml.tensor_values(others[0])
            experts = found.reshape(-1, ggml.head(others[0]).ne[0]).astype(np.int32, copy=False)
        self._observer.observe(
            Matmul(
                _weight_name(weights), (int(shape[2]), int(shape[3])), self._values(values), experts, tensor
            )
        )

    def _values(self, tensor: int) -> "NDArray[np.float32]":
        if self._last is None or self._last[0] != tensor:
            found = ggml.tensor_values(tensor, is_borrowed=True)
            self._last = (
                tensor,
                found.reshape(tuple(ggml.head(tensor).ne)[::-1]).astype(np.float32, copy=False),
            )
        return self._last[1]


class Taps:
    """Several taps in one: each sees what it wants itself."""

    def __init__(self, *taps: Tap) -> None:
        self._taps = taps
        self._wanting: dict[int, list[Tap]] = {}

    def wants(self, tensor: int) -> bool:
        self._wanting[tensor] = [tap for tap in self._taps if tap.wants(tensor)]
        return bool(self._wanting[tensor])

    def see(self, tensor: int) -> None:
        for tap in self._wanting.pop(tensor, ()):
            tap.see(tensor)


class UntilOutput:
    """The tap that ends a graph before the output matrix, which has as many rows as there are tokens in the vocabulary."""

    def wants(self, tensor: int) -> bool:
        return ggml.tensor_name(tensor) == "result_norm"

    def see(self, tensor: int) -> None:
        raise GraphDone(ggml.tensor_name(tensor))


def _weight_name(tensor: int) -> str:
    return _in_file(ggml.tensor_name(tensor))


@lru_cache(maxsize=1 << 14)
def _in_file(name: str) -> str:
    """Return the name that a tensor has in the file: the scheduler's copy of it on a device is CUDA0#blk.0.attn_k.weight#0."""
    return name.split("#")[1] if "#" in name else name
