"""Check a request against the model and its context, and make what it needs to run."""

from functools import cached_property

from mixcli.engine.constraint import Constraint, Grammars
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.draft_model import DraftModel
from mixcli.engine.generation import Generation
from mixcli.engine.labels import LabelScores
from mixcli.engine.sequence import Request, Sequence
from mixcli.engine.step_costs import StepCosts
from mixcli.engine.token_sampler import TokenSampler
from mixcli.errors import BadRequest, ContextOverflow
from mixcli.llama.model import Vocab


class Admission:
    """Admits requests to a context of `n_ctx` tokens; a `draft_model` guesses for each of them, as long as `costs` of steps let it pay."""

    def __init__(
        self, vocab: Vocab, n_ctx: int, costs: StepCosts, draft_model: DraftModel | None = None
    ) -> None:
        self._vocab, self._n_ctx, self._costs, self._draft_model = vocab, n_ctx, costs, draft_model
        self._ends = vocab.ends

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self._vocab)

    def compile(self, spec: ConstraintSpec, *, at_start: bool) -> Constraint:
        """Make a constraint, in any thread; the first one takes half a second more. Raises BadRequest."""
        return self._grammars.compile(spec, at_start=at_start)

    def has_compiled(self, spec: ConstraintSpec, *, at_start: bool) -> bool:
        """Return whether `compile` has nothing to do."""
        return "_grammars" in self.__dict__ and self._grammars.has(spec, at_start=at_start)

    def check(self, request: Request) -> None:
        """Raise ContextOverflow or BadRequest for a request that can never run."""
        n_vocab = self._vocab.n_tokens
        if not request.prompt:
            raise BadRequest("the prompt is empty; send text or token ids", param="prompt")
        if not all(0 <= token < n_vocab for token in request.prompt):
            raise BadRequest(f"the prompt has token ids outside 0 to {n_vocab - 1}", param="prompt")
        if len(request.prompt) > self._n_ctx:
            raise ContextOverflow(len(request.prompt), self._n_ctx)
        request.sampling.check_vocabulary(n_vocab)

    def generation(
        self, request: Request, constraint: Constraint | None, sampler: TokenSampler | None
    ) -> Generation:
        """Return the state of an answer, with its constraint and its sampler, which are made where that was not done before."""
        if constraint is None and request.constraint is not None:
            constraint = self.compile(request.constraint, at_start=not request.continues_text)
        return Generation(
            request, self._vocab, self._n_ctx, constraint, self._costs, self._draft_model, sampler
        )

    def label_scores(self, request: Request) -> LabelScores:
        """Return the scores of a request's labels; raise ContextOverflow where the longest does not fit after the prompt."""
        scores = LabelScores([label.tokens for label in request.labels], self._ends)
        n_needed = len(request.prompt) + scores.n_longest
        if n_needed > self._n_ctx:
            raise ContextOverflow(n_needed, self._n_ctx, what="the prompt with its longest label")
        return scores

    def sequence(self, request: Request) -> Sequence:
        """Return a request's sequence, with scores where it asks for labels."""
        return Sequence(request, scores=self.label_scores(request) if request.labels else None)
