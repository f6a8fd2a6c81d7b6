"""See which experts a mixture's routers choose while a context computes: the one observer of them."""

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import UsageError
from mixcli.llama.model import Model

TENSOR = "ffn_moe_topk-"  # llama.cpp's name for the ids of the experts that a layer's router chose; shape (tokens, experts used)


def expert_numbers(model: Model) -> tuple[int, int]:
    """Return how many experts a layer has, and how many of them a token uses; UsageError for a dense model."""
    architecture = model.metadata("general.architecture")
    n_expert = int(model.metadata(f"{architecture}.expert_count") or 0)
    if not n_expert:
        raise UsageError(f"{model.path.name} is a dense model: it has no experts")
    return n_expert, int(model.metadata(f"{architecture}.expert_used_count") or 0)


class ExpertChoices:
    """The TensorObserver of the routers; shared experts, which every token uses, are not routed to and do not appear.

    The last layer computes only tokens whose logits are wanted: want those of all tokens.
    """

    def __init__(self) -> None:
        self._seen: dict[int, list[NDArray[np.int64]]] = {}

    def accepts(self, name: str) -> bool:
        return name.startswith(TENSOR)

    def observe(self, name: str, values: "NDArray[np.generic]") -> None:
        rows = np.asarray(values, np.int64).reshape(-1, values.shape[-1])
        self._seen.setdefault(int(name.removeprefix(TENSOR)), []).append(rows)

    def take(self) -> dict[int, NDArray[np.int64]]:
        """Return the choices since the last call, layer -> (tokens, experts used), tokens in the order of the batches; dense layers have none."""
        found = {layer: np.concatenate(parts) for layer, parts in self._seen.items()}
        self._seen.clear()
        return found
