"""A small model beside the large one drafts its next tokens; the large one verifies them, so the answer is still the large model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from mixcli.engine.draft_pace import DraftPace
from mixcli.engine.step_costs import StepCosts
from mixcli.errors import MixcliError
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context


class DraftModel:
    """Guesses greedily, for one text at a time; what it computed of a text serves the next guess, and the next text that begins alike."""

    def __init__(self, context: Context, n_vocab: int) -> None:
        """`n_vocab` is the number of tokens that the large model knows: no other is guessed."""
        self._context, self._n_vocab = context, n_vocab
        self._batch = Batch(context.n_batch)
        self._computed: list[int] = []  # the tokens in its cache
        self._ends = context.model.vocab.ends

    def guess(self, tokens: Sequence[int], n: int) -> list[int]:
        """Return up to `n` tokens that may come after `tokens`; [] where the text is too long for it.

        Of a long text that is new to it one batch is computed, and nothing is guessed: a step of the large model does not wait for more.
        Raises ComputeError.
        """
        n = min(n, self._context.n_ctx - len(tokens))
        if n <= 0:
            return []
        self._keep(_n_alike(self._computed, tokens, len(tokens) - 1))
        rest = tokens[len(self._computed) :]
        self._compute(rest[: self._batch.capacity])
        guessed: list[int] = []
        while len(rest) <= self._batch.capacity and len(guessed) < n:
            token = int(self._context.logits(-1)[: self._n_vocab].argmax())
            if token in self._ends:
                break
            guessed.append(token)
            if len(guessed) < n:
                self._compute([token])
        return guessed

    def _keep(self, n_tokens: int) -> None:
        if n_tokens < len(self._computed):
            self._context.truncate(0, n_tokens)
            del self._computed[n_tokens:]

    def _compute(self, tokens: Sequence[int]) -> None:
        self._batch.clear()
        self._batch.extend(tokens, len(self._computed), 0, 1)
        self._context.decode(self._batch)
        self._computed += tokens


@dataclass(frozen=True)
class Drafting:
    """What an engine drafts with: a small model beside the large one, and what a plan expects of steps (profiles/drafting.py, step_costs)."""

    model: DraftModel | None = None
    step_costs: tuple[float, ...] = ()


ALONE = Drafting()


class ModelDrafts:
    """The drafts of one sequence by a draft model: it computes for one text, while the large model would compute several together."""

    only_alone = True

    def __init__(self, model: DraftModel, costs: StepCosts) -> None:
        self._model = model
        self._pace = DraftPace(costs)
        self._seconds = 0.0  # of the last draft

    def propose(self, tokens: Sequence[int], n_others: int = 0) -> list[int]:
        """Guess what comes after `tokens`; [] where drafts do not pay at present, or the draft model cannot compute."""
        began = perf_counter()
        length = self._pace.next_length(n_others)
        try:
            return self._model.guess(tokens, length) if length else []
        except MixcliError:  # the answer does not need it
            return []
        finally:
            self._seconds = perf_counter() - began

    def observe(self, n_drafted: int, n_accepted: int, n_others: int = 0) -> None:
        """Learn from a step of the large model, and from the seconds that its draft took."""
        self._pace.observe(n_drafted, n_accepted, n_others, self._seconds)


def _n_alike(computed: Sequence[int], tokens: Sequence[int], most: int) -> int:
    """Return how many first tokens are the same, at most `most`."""
    n = 0
    for ours, theirs in zip(computed, tokens[:most], strict=False):
        if ours != theirs:
            break
        n += 1
    return n
