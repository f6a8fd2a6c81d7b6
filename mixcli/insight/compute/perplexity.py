"""Compute how likely a model finds texts, chunk by chunk, and how far its distributions are from a baseline's.

As llama-perplexity does it: chunks of n_ctx tokens, each with an empty cache; the tokens of the second half count, so that all of them have
half a chunk before them.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from mixcli.errors import IntegrityError, UsageError
from mixcli.insight.baseline_file import BaselineHead, BaselineReader, Distributions, Logs, joined, written
from mixcli.insight.compute.chunks import ChunkReader, ChunkStep, cut
from mixcli.insight.compute.tokens import Section, sections
from mixcli.insight.orders import PerplexityOrder, n_at_once
from mixcli.insight.statistics import ChunkScores, rows_of
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.system.formatting import counted

Chunks = list[tuple[Section, list[int]]]


def evaluate(
    order: PerplexityOrder,
    model: Model,
    context: Context,
    report: Callable[[float, float, str], None],
    note: Callable[[str], None],
    reader: BaselineReader | None = None,
) -> dict[str, object]:
    """Read the texts, write or read the order's baseline, and return the scores of every text; `reader` has the baseline open already.

    Raises UsageError for texts of less than one chunk, and for a baseline of another vocabulary.
    """
    reading = order.reading
    texts = sections(model, reading.pieces, note, reading.n_enough)
    chunks = _chunks(model, texts, reading.n_ctx, note)[: reading.n_chunks]
    head = _head(model, chunks, reading.n_ctx)
    scores: list[ChunkScores] = []
    with ExitStack() as stack:
        writer = None
        if order.read_baseline:
            reader = reader or BaselineReader(order.read_baseline)
            stack.callback(reader.close)
            reader.head.check(head)
        if order.write_baseline:
            writer = stack.enter_context(written(order.write_baseline, head))
        evaluation = _Evaluation(context, reading.n_ctx, lambda n: report(n, len(chunks), ""))
        for start in range(0, len(chunks), n_at_once(reading.n_ctx)):
            together = chunks[start : start + n_at_once(reading.n_ctx)]
            if writer:
                for found in evaluation.distributions([ids for _, ids in together]):
                    writer.add(found)
            else:
                baselines = [reader.next() for _ in together] if reader else None
                scores += evaluation.scores(together, baselines)
    return {"rows": [row.to_data() for row in rows_of(scores)] if scores else []}


def _chunks(model: Model, found: Sequence[Section], n_ctx: int, note: Callable[[str], None]) -> Chunks:
    chunks: Chunks = []
    short = []
    for section in found:
        mine = cut(section.tokens, n_ctx, model.vocab)
        chunks += [(section, chunk) for chunk in mine]
        if not mine:
            short.append(f"{section.name} ({counted(len(section.tokens), 'token')})")
    what = f"{', '.join(short)}: less than one chunk of {n_ctx:,}"
    if not chunks:
        raise UsageError(f"{what}; use a longer text or a smaller --ctx")
    if short:
        note(f"skipped {what}")
    return chunks


def _head(model: Model, chunks: Chunks, n_ctx: int) -> BaselineHead:
    digest = hashlib.sha256()
    for _, ids in chunks:
        digest.update(np.array(ids, "<i4").tobytes())
    return BaselineHead(model.path.name, model.vocab.n_tokens, n_ctx, len(chunks), digest.hexdigest())


class _Evaluation:
    """Reads chunks and looks at the logits of their second halves."""

    def __init__(self, context: Context, n_ctx: int, report: Callable[[float], None]) -> None:
        self._context, self._reader, self._report = context, ChunkReader(context), report
        self._n_ctx, self._first = n_ctx, n_ctx // 2
        self._n_read = 0.0  # chunks

    def distributions(self, chunks: Sequence[list[int]]) -> list[Distributions]:
        """Return what a baseline keeps of each chunk."""
        parts: list[list[Distributions]] = [[] for _ in chunks]

        def take(
            i: int, _at: slice, logs: Logs, targets: "np.ndarray[tuple[int], np.dtype[np.int64]]"
        ) -> None:
            parts[i].append(Distributions.of(logs, targets))

        self._read(chunks, take)
        return [joined(mine) for mine in parts]

    def scores(self, chunks: Chunks, baselines: Sequence[Distributions] | None) -> list[ChunkScores]:
        """Return the scores of each chunk."""
        n = self._n_ctx - 1 - self._first
        nll, divergence = np.zeros((2, len(chunks), n))
        agrees = np.zeros((len(chunks), n), bool)

        def take(
            i: int, at: slice, logs: Logs, targets: "np.ndarray[tuple[int], np.dtype[np.int64]]"
        ) -> None:
            nll[i, at] = -logs[np.arange(len(logs)), targets]
            if baselines:
                own = baselines[i].part(at)
                divergence[i, at], agrees[i, at] = own.divergence(logs), own.agreement(logs)

        self._read([ids for _, ids in chunks], take)
        return [
            ChunkScores(section.name, section.kind, nll[i])
            if baselines is None
            else ChunkScores(
                section.name,
                section.kind,
                nll[i],
                baselines[i].nll.astype(np.float64),
                divergence[i],
                agrees[i],
            )
            for i, (section, _) in enumerate(chunks)
        ]

    def _read(self, chunks: Sequence[list[int]], take: Callable[..., None]) -> None:
        """Call `take(chunk's number, counted positions, log probabilities there, tokens that follow)` for every micro-batch."""
        for step in self._reader.read(chunks, self._first):
            self._n_read += len(chunks) * (step.stop - step.start) / self._n_ctx
            self._report(self._n_read)
            n = step.stop - step.first_logits
            n_counted = min(step.stop, self._n_ctx - 1) - step.first_logits  # nothing follows the last token
            if n_counted <= 0:
                continue
            logits = self._context.logits_of_all(n * len(chunks)).reshape(len(chunks), n, -1)
            for i, ids in enumerate(chunks):
                targets = np.array(ids[step.first_logits + 1 : step.first_logits + 1 + n_counted], np.int64)
                logs = log_softmax(logits[i, :n_counted])
                _check(self._context.model.path.name, logs, targets)
                take(i, self._positions(step, n_counted), logs, targets)

    def _positions(self, step: ChunkStep, n: int) -> slice:
        begin = step.first_logits - self._first
        return slice(begin, begin + n)


def _check(name: str, logs: Logs, targets: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    """Raise IntegrityError where logits give no probabilities, so that none reach a result or the cache.

    A logit that is NaN or the highest infinity makes the sum of its row NaN, and with it every value: one column tells. The lowest leaves the others,
    and matters where the text has that token.
    """
    if np.isnan(logs[:, 0]).any() or not np.isfinite(logs[np.arange(len(logs)), targets]).all():
        raise IntegrityError(
            f"{name} computes values that are not finite; the file is damaged or in a type that overflows: "
            "check it with `mixcli verify`, or use a BF16 or Q8_0 file"
        )


def log_softmax(logits: Logs) -> Logs:
    """Return log probabilities of logits (n, vocabulary); sums are float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    totals = np.exp(shifted).sum(axis=1, dtype=np.float64)
    return np.asarray(shifted - np.log(totals)[:, None].astype(np.float32))
