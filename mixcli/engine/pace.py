"""How long a step may take while others wait: tokens by measured time, and their division among prompts.

A step that computes much of a prompt makes all wait that take part in it: those that write, and those whose prompt it completes; and also who
comes in its middle. So a step has only as many tokens as this process computes in a given time, by the steps before. On a processor the rate hardly
depends on that: it is the same for 64 tokens as for 512, while an attention over many tokens computes 64 at a time, and a rest of them slowly.
Behind a long prompt half a tile may even take longer than a whole one, so both are measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

AWAITED, IDLE = 0.6, 1.0  # seconds of a step that others wait for, and of any other
TILE = 64  # tokens that llama.cpp's attention on a processor computes together
MIN_PREFILL = 32  # prompt tokens of a step that are worth it, and that tell a rate
MIN_IDLE = 4  # a step that no request waits for has at least one part in so many of a micro-batch
KEEP = 0.5  # share of the old value in a running mean
OLDEST = 4  # the oldest prompt has one part in so many
WORTH = 0.75  # of a tile's seconds that half a tile takes at most where it is preferred
RETRY = 8  # steps below a tile before a whole one is measured again
CROWD = 8  # requests that write, from which on a step stays just below a tile: see StepLimits.left
FEW = 4  # tiles of a step that are too few to make up for the one that a crowd is in
PAIR = 2 * TILE  # tokens from which on prompts beside a crowd have steps of their own: see StepLimits.apart


@dataclass(frozen=True)
class StepLimits:
    """Tokens of a step that other requests wait for, and of any other."""

    awaited: int
    idle: int

    def apart(self, n_writing: int, n_missing: int) -> bool:
        """Return whether prompts that lack `n_missing` tokens should have every other step for themselves, beside `n_writing` requests that write.

        In tiles of their own they see only their own cells, and those that write lose no more time than with so large a step together: with 32 that
        write, 128 tokens of prompts take 4.7 ms each, and 5.7 in one step with the others.
        """
        return n_writing >= CROWD and PAIR <= self.awaited < FEW * TILE and n_missing >= self.awaited

    def left(self, n_taken: int, n_room: int) -> "StepLimits":
        """Return what prompts may have beside `n_taken` tokens: something in any case where there is room.

        For a tile of tokens the attention computes every cell that any of them sees, below a tile only each token's own. So beside a crowd, whose cells
        are many and each its own, a step stays below one tile, unless it may have so many that the others, of prompts, make up for it: measured with
        32 that write, 63 tokens take 5.2 ms each, 128 take 5.7, 224 take 5.1 and 512 take 4.7.
        """
        is_crowd = CROWD <= n_taken < TILE - MIN_PREFILL
        most = TILE - 1 if is_crowd and TILE <= self.awaited < FEW * TILE else self.awaited
        awaited, idle = (max(0, min(n_room, max(MIN_PREFILL, n - n_taken))) for n in (most, self.idle))
        return StepLimits(awaited, idle)


class StepPace:
    """Measures how many tokens this process computes in a second; a step has at most `n_most`, of one micro-batch."""

    def __init__(self, n_ubatch: int, n_most: int) -> None:
        self._n_ubatch, self._n_most = n_ubatch, n_most
        self._rate = 0.0  # tokens a second, of steps of a tile or more
        self._part_rate = 0.0  # and of smaller ones
        self._n_parts = 0  # smaller ones since the last tile

    def limits(self) -> StepLimits:
        """Return how many tokens the next step may have; the most where nothing was measured."""
        if not self._rate:
            return StepLimits(self._n_ubatch, self._n_most)
        idle = max(_tiles(self._rate * IDLE), self._n_ubatch // MIN_IDLE)
        return StepLimits(
            min(self._n_ubatch, _tiles(self._rate * AWAITED) or self._least()),
            self._n_most if idle >= self._n_ubatch else idle,
        )

    def observe(self, n_tokens: int, n_prefill: int, seconds: float, *, done: bool = True) -> None:
        """Learn from a step of `n_tokens`, `n_prefill` of them of prompts; one with few of these says little of prompts.

        One that was cut off before it was `done` counts where no other was measured: a slow machine's next one must be shorter.
        """
        if n_prefill < MIN_PREFILL or seconds <= 0:
            return
        if not done:
            self._rate = self._rate or (n_tokens / seconds if seconds > IDLE else 0.0)
            return
        rate = n_tokens / seconds
        if n_tokens < TILE - 1 and self._rate:
            self._part_rate = _mean(self._part_rate, rate)
            self._n_parts += 1
        else:
            self._rate = _mean(self._rate, rate)
            self._n_parts = 0

    def _least(self) -> int:
        """Return a tile, or half of one where that takes much less time; now and then a tile, to see what it takes by now."""
        whole, part = TILE / self._rate, MIN_PREFILL / (self._part_rate or self._rate)
        return MIN_PREFILL if part <= WORTH * whole and self._n_parts < RETRY else TILE


def _mean(old: float, new: float) -> float:
    """Return the running mean; the new value where there is no old one."""
    return KEEP * old + (1 - KEEP) * new if old else new


def _tiles(n_tokens: float) -> int:
    """Round to whole tiles."""
    return round(n_tokens / TILE) * TILE


def shares(missing: Sequence[int], limits: StepLimits, *, awaited: bool) -> list[int]:
    """Divide the tokens of a step among prompts that lack `missing` tokens each, the oldest first; return how many each gets.

    The shortest rest comes first, so that a short prompt gets in beside a long one; the oldest has a part for itself, so that short ones cannot
    starve it. Where others wait for the step, or it completes a prompt, what is left unfinished is computed only as far as that takes little time.
    """
    n_most = limits.awaited if awaited else limits.idle
    n_quick = min(limits.awaited, n_most)
    given = [0] * len(missing)
    if missing:
        given[0] = min(missing[0], n_most, max(1, n_quick // OLDEST))
    n_used = sum(given)
    for i in sorted(range(len(missing)), key=missing.__getitem__):
        n = min(missing[i] - given[i], n_most - n_used)
        if given[i] + n == missing[i]:
            awaited = True
        elif awaited:
            n = max(0, min(n, n_quick - n_used))
        given[i] += n
        n_used += n
    return given
