"""The graph of one micro-batch through a model.

The order is that of llama.cpp's graph (seen in its own scheduler log, GGML_SCHED_DEBUG=2) for the architectures "llama", "mistral3", "mistral4" and
"deepseek2", dense or mixture of experts. profiles/schedule.py runs it.
"""

from collections.abc import Sequence

from profiles.dimensions import Dimensions
from profiles.graph.attention import Inputs, attention, latent_attention
from profiles.graph.experts import experts, feed_forward, fixed_feed_forward
from profiles.graph.nodes import PARTS, BatchShape, Builder, LayerHome, Share, Tensor

ATTENTION, DENSE = PARTS.index("attention"), PARTS.index("dense")


class Graph(Builder):
    """The graph of a model; `layers` are the devices of each layer's parts, `output` that of the output layer."""

    def __init__(
        self,
        shape: Dimensions,
        batch: BatchShape,
        layers: Sequence[LayerHome],
        output: int,
        host: int,
        offload: int | None,
    ) -> None:
        """Build the graph; `offload` is a device that computes with the host's weights."""
        super().__init__(shape, batch, host, offload)
        self.is_offloaded = host not in (output, *(layer.attention for layer in layers))
        tokens = self.input(4 * batch.n_tokens)
        self.input(self.row)  # embeddings instead of tokens: never read here, allocated anyway
        self._inputs = Inputs(self)
        self._out_ids = self.input(4 * batch.n_tokens)
        x = self.node(self.row, [self.weight(host, size=0), tokens])
        for i, layer in enumerate(layers):
            x = self._layer(x, layer, is_dense=i < shape.n_layer_dense, is_last=i == len(layers) - 1)
        norm = self.node(self.row, [x], over=(0,))
        norm = self.node(self.row, [norm, self.weight(output, size=0)], over=(0,))
        self.node(self.rows(shape.n_vocab), [self.weight(output, size=0), norm])

    def _layer(self, x: Tensor, home: LayerHome, *, is_dense: bool, is_last: bool) -> Tensor:
        shape = self.shape
        part, total = DENSE if is_dense else ATTENTION, shape.fixed_elements(is_dense=is_dense)

        def matrix(
            n_elements: int,
        ) -> Tensor:  # its share of all that stay together, as if they had the same type
            return self.weight(home.attention, Share(part, n_elements, total))

        if shape.mla is None:
            attended = attention(self, self._inputs, x, home, matrix)
        else:
            attended = latent_attention(self, self._inputs, shape.mla, x, home, matrix)
        if is_last:  # only what is asked for goes on
            attended = self.node(self.row, [attended, self._out_ids])
            x = self.node(self.row, [x, self._out_ids])
        residual = self.node(self.row, [attended, x], over=(0, 1))
        norm = self.norm(residual, home)
        if is_dense:
            out = fixed_feed_forward(self, norm, shape.n_ff, matrix)
        elif shape.n_expert:
            out = experts(self, norm, home)
            if shape.n_ff_shared:
                shared = fixed_feed_forward(self, norm, shape.n_ff_shared, matrix)
                out = self.node(self.row, [out, shared], over=(0, 1))
        else:
            out = feed_forward(self, norm, home)
        return self.node(self.row, [out, residual], over=(0, 1))


__all__ = ["Graph"]
