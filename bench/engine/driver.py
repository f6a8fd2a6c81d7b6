"""The process that holds mixcli's engine for a measurement: an order on stdin (bench/engine/ours.py), the tallies on stdout.

Prompts are random token ids, as llama-bench's are, and no two begin alike, so that no prefix is found in the cache.
"""

import json
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np

from bench.engine.ours import Load, Tally
from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Request, Usage
from mixcli.llama.loading import load
from profiles.placement import Placement

FIRST_TOKEN = 300  # control and byte tokens lie below


def main() -> None:
    """Read the order, write the answer."""
    order = json.loads(sys.stdin.read())
    loaded = load(Path(order["path"]), Placement.from_json(order["placement"]), {}, None)
    vocab = loaded.model.vocab
    driver = Driver(
        Engine(loaded.model, loaded.context),
        vocab.n_tokens,
        {token: -100.0 for token in range(vocab.n_tokens) if vocab.is_end(token)},
    )
    driver.run(Load(2, 32, 8))
    sys.stdout.write(json.dumps([asdict(driver.run(Load(**one))) for one in order["loads"]]))


class Driver:
    """Feeds an engine; `bias` keeps answers from ending before their time."""

    def __init__(self, engine: Engine, n_vocab: int, bias: Mapping[int, float]) -> None:
        self._engine, self._n_vocab, self._bias = engine, n_vocab, bias
        self._random = np.random.default_rng(1)
        self._n_requests = 0

    def run(self, wish: Load) -> Tally:
        """Keep `n_at_once` requests in flight until all are done."""
        waiting = deque(self._request(wish) for _ in range(wish.n_requests))
        usages: list[Usage] = []
        started = perf_counter()
        for _ in range(min(wish.n_at_once, wish.n_requests)):
            self._engine.add(waiting.popleft())
        while self._engine.has_work:
            for output in self._engine.step():
                if output.error is not None:
                    raise output.error
                if output.usage is not None:
                    usages.append(output.usage)
                    if waiting:
                        self._engine.add(waiting.popleft())
        return Tally(
            seconds=perf_counter() - started,
            n_requests=len(usages),
            n_prompt=sum(usage.n_prompt for usage in usages),
            n_generated=sum(usage.n_generated for usage in usages),
            seconds_prefill=sum(usage.seconds_prefill for usage in usages),
            seconds_decode=sum(usage.seconds_decode for usage in usages),
        )

    def _request(self, wish: Load) -> Request:
        self._n_requests += 1
        prompt = self._random.integers(FIRST_TOKEN, self._n_vocab, wish.n_prompt)
        sampling = SamplingParams(
            max_tokens=wish.n_tokens,
            temperature=wish.temperature,
            seed=self._n_requests,
            logit_bias=self._bias,
        )
        return Request(f"load-{self._n_requests}", tuple(map(int, prompt)), sampling, park=False)


if __name__ == "__main__":
    main()
