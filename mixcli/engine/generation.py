"""One running answer: what chooses its tokens (constraint, sampler) and turns them into text (detokenizer, stop texts)."""

from mixcli.engine.constraint import Constraint
from mixcli.engine.detokenizer import Detokenizer, StopMatcher
from mixcli.engine.llama import Context, Vocab
from mixcli.engine.logprobs import logprobs_of
from mixcli.engine.sequence import Request, TokenLogprob


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

    def choose(self, context: Context, index: int) -> tuple[int, TokenLogprob | None]:
        """Choose the next token by the logits behind batch token `index`, and remember it."""
        logits = context.logits(index)
        row = None if self._request.top_logprobs is None else logits.copy()
        if self._constraint is not None:
            self._constraint.mask(logits)
        token = self._chooser.choose(logits)
        if self._constraint is not None:
            self._constraint.accept(token)
        return token, None if row is None else logprobs_of(row, token, self._request.top_logprobs or 0)

    def append(self, token: int) -> tuple[str, bool]:
        """Give a chosen token's showable text, and whether a stop text ended the answer."""
        return self._stops.push(self._detokenizer.push(token))

    def rest(self) -> str:
        """Give the text that was held back, at the end of an answer that no stop text ended."""
        text, stopped = self._stops.push(self._detokenizer.flush())
        return text if stopped else text + self._stops.flush()

    def close(self) -> None:
        """Free the sampler."""
        self._chooser.close()
