"""Turn what a step computed into outputs: note the computed tokens, choose the next ones, score labels."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mixcli.engine.field_scores import FieldEnds
from mixcli.engine.generation import Generation
from mixcli.engine.prefix_cache import PrefixCache
from mixcli.engine.scheduler import Chunk, Scoring
from mixcli.engine.sequence import Output, Sequence, TokenResult
from mixcli.engine.step_decoder import StepDecoder


class StepResults:
    """Reads the logits of the decoder's last step; `generations` are those of the running requests without labels."""

    def __init__(
        self,
        decoder: StepDecoder,
        cache: PrefixCache,
        generations: Mapping[str, Generation],
        field_ends: FieldEnds,
    ) -> None:
        self._field_ends = field_ends
        self._decoder, self._cache, self._generations = decoder, cache, generations
        self.n_prompt_tokens = 0  # prompt tokens that were computed so far

    def of_chunk(self, chunk: Chunk, row: int, *, done: bool) -> Output | None:
        """Return what a chunk gave, with logits from `row` on; None where it gave nothing yet.

        Of an interrupted step (not `done`) the logits are lost: the tokens that had some are computed again.
        """
        sequence = chunk.sequence
        assert sequence.slot is not None
        n = self._decoder.n_computed(chunk, done=done)
        self._cache.extend(sequence.slot, chunk.tokens[:n])
        sequence.n_computed = chunk.start + n
        self.n_prompt_tokens += max(0, min(sequence.n_computed, sequence.n_prompt) - chunk.start)
        if not done:
            self.truncate(sequence, min(sequence.n_computed, chunk.start + chunk.n_tokens - chunk.n_logits))
            sequence.drafts = []
        if not done or not chunk.n_logits:
            return (
                Output(sequence.id, "", (), progress=sequence.progress())
                if not sequence.n_generated
                else None
            )
        for i in range(chunk.n_logits):
            self._decoder.check_logits(row + i, is_first=i == 0 and not sequence.n_generated)
        return self._generate(chunk, row) if sequence.scores is None else self._score(chunk, row)

    def of_scoring(self, scoring: Scoring, row: int) -> Output | None:
        """Return the answer where a fan of labels, with logits from `row` on, was the last one; None before."""
        scores = scoring.sequence.scores
        assert scores is not None
        for i, node in enumerate(scoring.nodes):
            self._decoder.check_logits(row + i, is_first=False)
            scores.see(node.branch, node.offset, self._decoder.logits(row + i))
        return self._best_label(scoring.sequence)

    def truncate(self, sequence: Sequence, n_tokens: int) -> None:
        """Forget all but the first computed tokens of a sequence, or all that is computed where it could not continue after these."""
        assert sequence.slot is not None
        sequence.n_computed = self._cache.truncate(sequence.slot, n_tokens)

    def _generate(self, chunk: Chunk, row: int) -> Output:
        """Choose the tokens that a chunk has logits for: the next one, and one more for each draft that proves right."""
        sequence, generation = chunk.sequence, self._generations[chunk.sequence.id]
        drafts, sequence.drafts = sequence.drafts, []
        results: list[TokenResult] = []
        for i in range(chunk.n_logits):
            result = generation.choose(self._decoder.logits(row + i))
            results.append(result)
            if result.token is not None:
                sequence.append(result.token)
                sequence.n_reasoning += result.thinks
            if result.finish_reason or i == len(drafts) or result.token != drafts[i]:
                break
        n_accepted = len(results) - 1
        if drafts:
            sequence.n_drafted += len(drafts)
            sequence.n_accepted += n_accepted
            self.truncate(sequence, chunk.start + 1 + n_accepted)
        if chunk.n_tokens == 1 + len(drafts):
            generation.observe(len(drafts), n_accepted)
        output = Output.of(sequence.id, results)
        return self._with_fields(sequence, output) if output.finish_reason == "stop" else output

    def _with_fields(self, sequence: Sequence, output: Output) -> Output:
        """Return the last output of a written answer with its fields, where these are asked for; without its end while they must be scored."""
        fields = self._generations[sequence.id].fields(self._field_ends)
        if fields is None:
            return output
        if fields.scores is None:
            return replace(output, fields=fields.results())
        sequence.score_fields(fields)
        self.truncate(sequence, sequence.n_base - 1)  # the logits after the base are the first
        return replace(output, finish_reason=None)

    def _score(self, chunk: Chunk, row: int) -> Output | None:
        """Score the tokens of a path to labels."""
        sequence = chunk.sequence
        assert sequence.scores is not None
        first = chunk.start + chunk.n_tokens - chunk.n_logits + 1 - sequence.n_base  # tokens of the path
        for i in range(chunk.n_logits):
            sequence.scores.see_path(first + i, self._decoder.logits(row + i))
        return self._best_label(sequence)

    def _best_label(self, sequence: Sequence) -> Output | None:
        """Return the most likely label, or the fields of the answer, once all are scored."""
        assert sequence.scores is not None
        if not sequence.scores.is_complete:
            return None
        if sequence.fields is not None:
            return Output(sequence.id, "", (), "stop", fields=sequence.fields.results())
        probabilities = sequence.scores.probabilities()
        best = sequence.request.labels[int(np.argmax(probabilities))]
        return Output(sequence.id, best.text, best.tokens, "stop", label_probs=probabilities)
