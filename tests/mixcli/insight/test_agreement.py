"""SmolLM2's importance and perplexity are those that llama-imatrix and llama-perplexity gave, by bench.insight's options."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.importance import InputSquares, sum_up
from mixcli.insight.compute.likelihood import evaluate
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, PerplexityOrder, TextReading
from mixcli.insight.pieces import TextPiece
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import Matmuls
from quantize.imatrix import read_imatrix
from tests.support.models import PLACEMENT

TEXT = (
    "The ferry left the pier at six in the morning, when the fog still lay on the water and the lamps were lit. Nobody spoke. "
    "A boy counted the gulls, lost his place, and began again; his mother knitted without looking at her hands. In the engine "
    "room the old diesel found its rhythm, forty beats a minute, and the cups on the counter took it up. By seven the sun had "
    "eaten a hole into the fog, and through it one could see the other shore, a church, three poplars, and the road that leads "
    "up to the quarry. It takes fifty minutes to cross if the wind is fair. The captain, who has crossed eleven thousand times, "
    "still writes down the hour, the wind, and the number of passengers, because a day that is not written down, he says, has "
    "only half happened. That morning he wrote: calm, fog until seven, nineteen and a dog. The dog belonged to no one. "
) * 2
# of llama.cpp 0c1e57098: -f TEXT -c 128 --chunks 2 -t 2 --no-repack -fa on -ngl 0
PERPLEXITY = 35.5524
IMPORTANCE = {  # mean and largest value
    "blk.0.attn_q.weight": (0.0022205461, 0.2954253852),
    "blk.7.attn_output.weight": (0.0213445928, 0.7598301172),
    "blk.15.ffn_up.weight": (0.0209843908, 3.6688668728),
    "blk.29.ffn_down.weight": (14.6814928055, 1690.2484130859),
}


def silent(*_: object) -> None:
    """Report nothing."""


@pytest.mark.model
def test_the_same_numbers_as_llama_cpp(smol: Model, smol_path: Path, tmp_path: Path) -> None:
    placement = replace(PLACEMENT, n_ctx=2048, n_batch=512, n_ubatch=512, n_seq_max=16, repack=False)
    reading = TextReading(smol_path, LoadPlan(placement), (TextPiece("text", "prose", TEXT),), 128, 2)
    sums = ImportanceSums()
    tap = Matmuls(InputSquares(sums, with_output=False))
    with Context(smol, placement, kv_unified=False, tap=tap) as context:
        sum_up(ImatrixOrder(reading, tmp_path / "part", "run"), smol, context, sums, silent, silent)
    write_imatrix(tmp_path / "m.gguf", sums.entries, 128, "text")
    found = read_imatrix(tmp_path / "m.gguf")
    assert (len(found.entries), found.n_chunks) == (210, 2)
    for name, (mean, largest) in IMPORTANCE.items():
        values = found.entries[name]
        assert (values.mean(), values.max()) == (
            pytest.approx(mean, rel=0.01),
            pytest.approx(largest, rel=0.01),
        )
    with Context(smol, placement, kv_unified=False) as context:
        (row,) = evaluate(PerplexityOrder(reading), smol, context, silent, silent)["rows"]  # type: ignore[misc]
    assert row["perplexity"]["value"] == pytest.approx(PERPLEXITY, rel=0.005)
