"""SmolLM2's importance is what llama-imatrix gave; its perplexity and divergence are what the logits of the bindings' own class give.

Perplexities are not stored: flash attention adds in 16 bits, in an order that depends on the processor, which moves them by some percent.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import Llama
from numpy.typing import NDArray

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.importance import InputSquares, sum_up
from mixcli.insight.compute.perplexity import evaluate
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, PerplexityOrder, TextReading
from mixcli.insight.pieces import TextPiece
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import Matmuls
from quantize import Options, convert
from quantize.imatrix import read_imatrix
from tests.support.models import PLACEMENT

Logs = NDArray[np.float64]
TEXT = (
    "The ferry left the pier at six in the morning, when the fog still lay on the water and the lamps were lit. Nobody spoke. "
    "A boy counted the gulls, lost his place, and began again; his mother knitted without looking at her hands. In the engine "
    "room the old diesel found its rhythm, forty beats a minute, and the cups on the counter took it up. By seven the sun had "
    "eaten a hole into the fog, and through it one could see the other shore, a church, three poplars, and the road that leads "
    "up to the quarry. It takes fifty minutes to cross if the wind is fair. The captain, who has crossed eleven thousand times, "
    "still writes down the hour, the wind, and the number of passengers, because a day that is not written down, he says, has "
    "only half happened. That morning he wrote: calm, fog until seven, nineteen and a dog. The dog belonged to no one. "
) * 2
N_CTX, N_CHUNKS = 128, 2
# of llama.cpp 0c1e57098: -f TEXT -c 128 --chunks 2 -t 2 --no-repack -fa on -ngl 0
IMPORTANCE = {  # mean and largest value
    "blk.0.attn_q.weight": (0.0022205461, 0.2954253852),
    "blk.7.attn_output.weight": (0.0213445928, 0.7598301172),
    "blk.15.ffn_up.weight": (0.0209843908, 3.6688668728),
    "blk.29.ffn_down.weight": (14.6814928055, 1690.2484130859),
}


def silent(*_: object) -> None:
    """Report nothing."""


@pytest.mark.slow
@pytest.mark.model
def test_the_same_numbers_as_llama_cpp(smol: Model, smol_path: Path, tmp_path: Path) -> None:
    reading = reading_of(smol_path)
    sums = ImportanceSums()
    tap = Matmuls(InputSquares(sums, with_output=False))
    with Context(smol, reading.plan.placement, kv_unified=False, tap=tap) as context:
        sum_up(ImatrixOrder(reading, tmp_path / "part", "run"), smol, context, sums, silent, silent)
    write_imatrix(tmp_path / "m.gguf", sums.entries, N_CTX, "text")
    found = read_imatrix(tmp_path / "m.gguf")
    assert (len(found.entries), found.n_chunks) == (210, 2)
    for name, (mean, largest) in IMPORTANCE.items():
        values = found.entries[name]
        assert (values.mean(), values.max()) == (
            pytest.approx(mean, rel=0.01),
            pytest.approx(largest, rel=0.01),
        )


@pytest.mark.model
@pytest.mark.slow
def test_perplexity_and_divergence_are_those_of_all_logits(smol_path: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.gguf"
    types = ((r"blk\.2\d\.ffn_down", "Q2_K"),)
    convert(smol_path, small, Options(output_type="Q4_1", tensor_types=types, allow_requantize=True))
    kept = tmp_path / "baseline"
    scores(smol_path, PerplexityOrder(reading_of(smol_path), write_baseline=kept))
    (row,) = scores(small, PerplexityOrder(reading_of(small), read_baseline=kept))
    base, other = log_probabilities(smol_path), log_probabilities(small)
    for name, logs in (("baseline_perplexity", base), ("perplexity", other)):
        assert row[name]["value"] == pytest.approx(np.exp(-np.mean(of_next(logs))), rel=0.005)
    exact = np.concatenate(
        [(np.exp(p) * (p - q)).sum(axis=1) for (p, _), (q, _) in zip(base, other, strict=True)]
    )
    assert row["kl_mean"]["value"] == pytest.approx(exact.mean(), rel=0.01)
    assert row["kl_median"]["value"] == pytest.approx(np.median(exact), rel=0.03)


def reading_of(path: Path) -> TextReading:
    placement = replace(PLACEMENT, n_ctx=2048, n_batch=512, n_ubatch=512, n_seq_max=16, repack=False)
    return TextReading(path, LoadPlan(placement), (TextPiece("text", "prose", TEXT),), N_CTX, N_CHUNKS)


def scores(path: Path, order: PerplexityOrder) -> list[Any]:
    placement = order.reading.plan.placement
    with Model.load(path, placement) as model, Context(model, placement, kv_unified=False) as context:
        return evaluate(order, model, context, silent, silent)["rows"]  # type: ignore[return-value]


def log_probabilities(path: Path) -> list[tuple[Logs, Logs]]:
    """Return, for each chunk, log probabilities (positions, vocabulary) of its second half and the tokens that follow."""
    model = Llama(
        str(path),
        n_ctx=N_CTX,
        n_batch=N_CTX,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        flash_attn=True,
        verbose=False,
    )
    tokens = model.tokenize(TEXT.encode(), add_bos=False)
    found = []
    for start in range(0, N_CHUNKS * N_CTX, N_CTX):
        chunk = tokens[start : start + N_CTX]
        model.reset()
        model.eval(chunk)
        logits = model.scores[N_CTX // 2 : N_CTX - 1].astype(np.float64)
        logs = logits - np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
        found.append((logs - logits.max(axis=1, keepdims=True), np.array(chunk[N_CTX // 2 + 1 :])))
    model.close()
    return found


def of_next(chunks: list[tuple[Logs, Logs]]) -> Logs:
    """Return the log probabilities of the tokens that follow."""
    return np.concatenate([logs[np.arange(len(logs)), following] for logs, following in chunks])
