"""Counting the experts of a model whose first layers are dense."""

from pathlib import Path

from mixcli.engine.expert_routing import routing
from mixcli.llama.model import Model
from profiles.placement import Placement
from tests.support.family import write_small


def test_experts_are_counted_in_the_layers_that_have_some(tmp_path: Path) -> None:
    path = write_small(tmp_path / "m.gguf", "deepseek2")
    placement = Placement(n_ctx=256, n_threads=1, n_threads_batch=1)
    with Model.load(path, placement) as model:
        found = routing(model, placement, range(5, 105), 40)
    assert (found.n_expert, found.n_expert_used, found.n_tokens) == (8, 2, 60)
    assert [sum(layer) for layer in found.layers] == [0, 120, 120]
