"""Load a model once and report its memory and speed, as a child process: `python -m mixcli.llama.probe` with an order on stdin.

Order and answer are those of mixcli/system/measurements.py. A process of its own, because a plan that is tried may kill it.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from mixcli.errors import MixcliError
from mixcli.llama.batch import Batch
from mixcli.llama.loading import Loaded, load
from mixcli.llama.worker_watch import COMPUTE, LOAD, WorkerWatch
from mixcli.system.measurements import ProbeAnswer, ProbeOrder

WARM_UP = 64  # tokens, enough that a GPU works with host memory's experts


@dataclass(frozen=True)
class ProbeRates:
    """Tokens per second of prefill and of decode."""

    prefill: float
    decode: float


def main() -> None:
    """Read the order, write the answer."""
    order = ProbeOrder.from_json(sys.stdin.read())
    watch = WorkerWatch(order.placement.workers, _give_up)
    try:
        with watch.waiting(LOAD):
            loaded = load(order.path, order.placement, order.expected, None, lambda _: watch.alive())
    except MixcliError as error:
        _give_up(error)
    with watch.waiting(COMPUTE):
        answer = _answer(loaded, order)
    sys.stdout.write(answer)


def _give_up(error: MixcliError) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)  # also while llama.cpp waits for a worker


def _answer(loaded: Loaded, order: ProbeOrder) -> str:
    """Measure what the order names, and return the answer as JSON."""
    speed = rates(loaded, order.prompt, order.tokens) if order.tokens else ProbeRates(0.0, 0.0)
    return ProbeAnswer(
        tuple(loaded.comparisons),
        tuple(loaded.notes),
        speed.prefill,
        speed.decode,
        {n: at_once(loaded, n, order.tokens) for n in order.batches},
        tuple(logits_after(loaded, order.logits)) if order.logits else (),
    ).to_json()


def logits_after(loaded: Loaded, tokens: Sequence[int]) -> list[float]:
    """Compute a prompt in one batch and return the logits after it."""
    batch = Batch(loaded.context.n_batch)
    batch.extend(tokens, 0, 0, n_logits=1)
    loaded.context.decode(batch)
    return [float(logit) for logit in loaded.context.logits()]


def text(loaded: Loaded, n: int, seed: int = 0) -> list[int]:
    """Return `n` tokens at random, the same ones each time: equal tokens would all go to the same experts, which no text does."""
    draw = Random(seed)
    return [draw.randrange(loaded.model.vocab.n_tokens) for _ in range(n)]


def at_once(loaded: Loaded, n_sequences: int, n_tokens: int) -> float:
    """Measure tokens per second of that many sequences together, from an empty cache."""
    context = loaded.context
    batch = Batch(context.n_batch)
    for sequence in range(n_sequences):
        context.truncate(sequence, 0)
    texts = [text(loaded, n_tokens + 1, sequence) for sequence in range(n_sequences)]
    begin = 0.0
    for position in range(n_tokens + 1):
        if position == 1:  # the first step warms up
            begin = time.perf_counter()
        batch.clear()
        for sequence in range(n_sequences):
            batch.extend(texts[sequence][position : position + 1], position, sequence, n_logits=1)
        context.decode(batch)
        context.logits()  # waits for a GPU
    seconds = time.perf_counter() - begin
    for sequence in range(n_sequences):
        context.truncate(sequence, 0)
    return n_sequences * n_tokens / seconds


def rates(loaded: Loaded, n_prompt: int, n_tokens: int) -> ProbeRates:
    """Measure tokens per second of prefill and of decode, after a short warm-up."""
    context = loaded.context
    batch = Batch(context.n_batch)
    tokens = text(loaded, n_prompt + n_tokens)

    def feed(start: int, count: int) -> float:
        begin = time.perf_counter()
        done = 0
        while done < count:
            n = min(context.n_batch, count - done)
            batch.clear()
            batch.extend(tokens[start + done : start + done + n], start + done, 0, n_logits=1)
            context.decode(batch)
            done += n
        context.logits()  # waits for a GPU
        return time.perf_counter() - begin

    n_warm = min(WARM_UP, n_prompt)
    feed(0, n_warm)
    feed(n_warm, 1)
    context.truncate(0, 0)
    prefill = feed(0, n_prompt)
    decode = 0.0
    for i in range(n_tokens):
        decode += feed(n_prompt + i, 1)
    return ProbeRates(n_prompt / prefill, n_tokens / decode)


if __name__ == "__main__":
    main()
