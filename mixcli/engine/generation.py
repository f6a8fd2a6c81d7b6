"""The state of a running answer: constraint, sampler, detokenizer and stop texts."""

from mixcli.engine.constraint import Constraint
from mixcli.engine.logprobs import TokenLogprobs, token_logprobs
from mixcli.engine.sequence import Request
from mixcli.engine.token_sampler import Logits
from mixcli.llama.model import Vocab
from mixcli.prompts.detokenizer import Detokenizer, StopMatcher

MAX_FORCED = 32  # tokens that are computed at once


class Generation:
    """Owns the native sampler of one request; `constraint` is its own too."""

    def __init__(self, request: Request, vocab: Vocab, n_ctx: int, constraint: Constraint | None) -> None:
        self._request = request
        self._chooser = request.sampling.chooser(vocab, n_ctx, request.prompt)
        self._constraint = constraint
        self._detokenizer = Detokenizer(vocab, at_start=not request.continues_text)
        self._stops = StopMatcher(request.sampling.stop)

    @property
    def is_complete(self) -> bool:
        """Whether the constraint lets nothing more come."""
        return self._constraint is not None and self._constraint.is_complete

    def forced(self) -> list[int]:
        """Return the tokens that the constraint makes certain to come next."""
        return self._constraint.forced()[:MAX_FORCED] if self._constraint is not None else []

    def choose(self, logits: Logits) -> tuple[int, TokenLogprobs | None]:
        """Choose the next token by a row of logits, shape (n_vocab,), which the constraint writes to; remember it."""
        if self._constraint is not None:
            self._constraint.mask(logits)
        token = self._chooser.choose(logits)
        if self._constraint is not None:
            self._constraint.accept(token)
        n_top = self._request.top_logprobs
        return token, None if n_top is None else token_logprobs(logits, token, n_top)

    def append(self, token: int) -> tuple[str, bool]:
        """Return a chosen token's showable text, and whether a stop text ended the answer."""
        return self._stops.push(self._detokenizer.push(token))

    def rest(self) -> str:
        """Return the text that was held back, at the end of an answer that no stop text ended."""
        text, stopped = self._stops.push(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()

    def close(self) -> None:
        """Free the sampler."""
        self._chooser.close()
