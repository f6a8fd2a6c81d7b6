"""One request on its way through the engine: what was asked, what has been computed, what it cost."""

from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Literal

from mixcli.engine.detokenizer import Detokenizer, StopMatcher
from mixcli.engine.llama import Vocab
from mixcli.engine.sampling import SamplingParams

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class Request:
    """What the engine is asked for: continue `prompt` (token ids) as `sampling` says.

    `continues_text` says that the prompt ends in the middle of a text that the answer goes on with.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    continues_text: bool = False


@dataclass(frozen=True)
class Usage:
    """What a finished request cost: tokens, and seconds in the queue, in prefill and in decode.

    `n_cached` of the `n_prompt` tokens were already in the KV cache. `seconds_decode` counts from the first token to the last,
    so the speed is (n_generated - 1) / seconds_decode.
    """

    n_prompt: int
    n_cached: int
    n_generated: int
    seconds_queue: float
    seconds_prefill: float
    seconds_decode: float


@dataclass(frozen=True)
class Output:
    """What one step brought for one request; the last one has `finish_reason` and `usage`."""

    id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class SequenceStatus(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """A request's state: its tokens so far, how many of them are computed, and its clocks.

    `n_computed` counts the tokens whose keys and values are in the KV cache; `n_cached` those that were there before it began.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens = list(request.prompt)
        self.status = SequenceStatus.WAITING
        self.n_computed = 0
        self.n_cached = 0
        self._added = self._started = self._first_token = self._last_token = perf_counter()

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def n_prompt(self) -> int:
        return len(self.request.prompt)

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_missing(self) -> int:
        """Tokens that must be computed before the next one can be chosen."""
        return len(self.tokens) - self.n_computed

    def start(self, vocab: Vocab, n_ctx: int, n_cached: int) -> None:
        """Begin to compute, with `n_cached` tokens already in the KV cache."""
        self.status = SequenceStatus.RUNNING
        self.n_computed = self.n_cached = n_cached
        self._started = perf_counter()
        self.chooser = self.request.sampling.chooser(vocab, n_ctx, self.request.prompt)
        self._detokenizer = Detokenizer(vocab, at_start=not self.request.continues_text)
        self._stops = StopMatcher(self.request.sampling.stop)

    def append(self, token: int) -> tuple[str, bool]:
        """Take a chosen token; give its showable text, and whether a stop text ended the answer."""
        self.tokens.append(token)
        self._last_token = perf_counter()
        if self.n_generated == 1:
            self._first_token = self._last_token
        return self._stops.push(self._detokenizer.push(token))

    def rest(self) -> str:
        """Give the text that was held back, at the end of an answer that no stop text ended."""
        text, stopped = self._stops.push(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()

    def finish(self) -> Usage:
        """Close the books."""
        now = perf_counter()
        waiting = self.status is SequenceStatus.WAITING
        if not waiting:
            self.chooser.close()
        self.status = SequenceStatus.FINISHED
        started = now if waiting else self._started
        first = self._first_token if self.n_generated else now
        return Usage(
            n_prompt=self.n_prompt,
            n_cached=self.n_cached,
            n_generated=self.n_generated,
            seconds_queue=started - self._added,
            seconds_prefill=first - started,
            seconds_decode=self._last_token - first if self.n_generated else 0.0,
        )
