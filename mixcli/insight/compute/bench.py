"""Measure prefill and decode as llama-bench does: each test after a warm-up, random tokens, nothing sampled."""

import time
from collections.abc import Callable, Iterator
from random import Random

from mixcli.insight.bench_record import BenchSample, BenchTest
from mixcli.insight.orders import BenchOrder
from mixcli.llama.batch import Batch
from mixcli.llama.context import ComputeError, Context
from mixcli.llama.model import Model
from mixcli.system import cpu_use

N_WARM = 1  # tokens of decode before a test
N_TOKENS = 4096  # that are drawn at least
APART = 131  # places between the tokens of two texts, which no text shares with its neighbor


def samples(
    order: BenchOrder, model: Model, context: Context, report: Callable[[float, float, str], None]
) -> Iterator[tuple[BenchTest, BenchSample]]:
    """Yield each repetition of each test as it is measured."""
    speed = _Speed(model, context, max(test.n_text for test in order.tests))
    total = len(order.tests) * order.n_repeats
    for number, test in enumerate(order.tests):
        for i in range(-1, order.n_repeats):
            report(number * order.n_repeats + max(i, 0), total, test.words)
            speed.begin(test, again=i >= 0)
            if i < 0:
                speed.warm_up(test)
                continue
            before = cpu_use.read()
            rate = speed.measured(test)
            after = cpu_use.read()
            others = cpu_use.others(before, after) if before and after else None
            yield test, BenchSample(rate, others)


class _Speed:
    """Feeds random tokens to a context; they are drawn before the clock runs."""

    def __init__(self, model: Model, context: Context, n_text: int) -> None:
        self._context, self._batch = context, Batch(context.n_batch)
        draw, n_vocab = Random(0), model.vocab.n_tokens
        self._tokens = [draw.randrange(n_vocab) for _ in range(max(n_text, N_TOKENS))]

    def begin(self, test: BenchTest, *, again: bool) -> None:
        """Leave `depth` tokens of each text in the cache; `again` where the same test has been there."""
        if again and test.depth and self._cut(test):
            return
        self._context.clear()
        for sequence in range(test.n_batch if test.depth else 0):
            self._prefill(sequence, 0, test.depth)

    def _cut(self, test: BenchTest) -> bool:
        """Forget what a repetition added; False where the cache cannot, so that its texts must be read again."""
        try:
            for sequence in range(test.n_batch):
                if not self._context.can_continue(sequence, test.depth):
                    return False
                self._context.truncate(sequence, test.depth)
        except ComputeError:
            return False
        return True

    def warm_up(self, test: BenchTest) -> None:
        """Compute a little of a test."""
        if test.kind == "prefill":
            self._prefill(0, test.depth, min(test.n_tokens, self._context.n_ubatch))
        else:
            self._decode(test, N_WARM)

    def measured(self, test: BenchTest) -> float:
        """Return the tokens per second of a test, of all texts together."""
        begin = time.perf_counter()
        if test.kind == "prefill":
            self._prefill(0, test.depth, test.n_tokens)
        else:
            self._decode(test, test.n_tokens)
        return test.n_batch * test.n_tokens / (time.perf_counter() - begin)

    def _prefill(self, sequence: int, start: int, n_tokens: int) -> None:
        for at in range(start, start + n_tokens, self._context.n_batch):
            n = min(self._context.n_batch, start + n_tokens - at)
            self._batch.clear()
            self._batch.extend(self._tokens[at : at + n], at, sequence, n_logits=1)
            self._context.decode(self._batch)
        self._context.synchronize()

    def _decode(self, test: BenchTest, n_tokens: int) -> None:
        for position in range(test.depth, test.depth + n_tokens):
            self._batch.clear()
            for sequence in range(test.n_batch):
                token = self._tokens[(position + sequence * APART) % len(self._tokens)]
                self._batch.add(token, position, (sequence,))
            self._context.decode(self._batch)
            self._context.synchronize()
