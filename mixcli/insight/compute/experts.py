"""Read texts and keep which experts every token was given to, layer by layer."""

import json
from collections.abc import Callable, Sequence

import numpy as np

from mixcli.errors import UsageError
from mixcli.insight.compute.chunks import ChunkReader, cut
from mixcli.insight.compute.tokens import stream
from mixcli.insight.expert_use import Chosen, ExpertReport, RoutedText, summed_up
from mixcli.insight.orders import ExpertsOrder, n_at_once
from mixcli.insight.pieces import TextPiece
from mixcli.llama.context import Context
from mixcli.llama.expert_choices import ExpertChoices, expert_numbers
from mixcli.llama.model import Model, Vocab
from mixcli.system.formatting import counted

Chunks = list[list[int]]


def observe(
    order: ExpertsOrder,
    model: Model,
    context: Context,
    choices: ExpertChoices,
    report: Callable[[float, float, str], None],
    note: Callable[[str], None],
) -> ExpertReport:
    """Read the texts with a context whose tap fills `choices`, and return what the routers did.

    Raises UsageError for texts of less than one chunk, and for a dense model.
    """
    n_expert, n_used = expert_numbers(model)
    texts = [
        _chunks(order, model, pieces, note) for pieces in (order.reading.pieces, order.against) if pieces
    ]
    total, done = sum(map(len, texts)), 0
    found = []
    for chunks in texts:
        found.append(
            _routed(context, choices, chunks, lambda n, before=done: report(before + n, total, ""))  # type: ignore[misc]
        )
        done += len(chunks)
    text, *others = found
    return summed_up(text, others[0] if others else None, n_expert, n_used, _piece_of(model.vocab))


def _chunks(
    order: ExpertsOrder, model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None]
) -> Chunks:
    n_ctx = order.reading.n_ctx
    tokens = stream(model, pieces, note, order.reading.n_enough)
    chunks = cut(tokens, n_ctx, model.vocab)[: order.reading.n_chunks]
    if not chunks:
        raise UsageError(
            f"the text {pieces[0].name} is {counted(len(tokens), 'token')} long, less than one chunk of {n_ctx:,}; "
            "use a longer text or a smaller --ctx"
        )
    return chunks


def _routed(
    context: Context, choices: ExpertChoices, chunks: Chunks, report: Callable[[float], None]
) -> RoutedText:
    """Read chunks, some at once, and put the routers' choices where their tokens stand."""
    n_ctx, reader = len(chunks[0]), ChunkReader(context)
    found: dict[int, Chosen] = {}
    choices.take()  # what a load may have computed
    for first in range(0, len(chunks), n_at_once(n_ctx)):
        together = chunks[first : first + n_at_once(n_ctx)]
        for step in reader.read(together):
            for layer, rows in choices.take().items():
                if layer not in found:
                    found[layer] = np.zeros((len(chunks), n_ctx, rows.shape[1]), np.int16)
                of_chunks = rows.reshape(len(together), step.stop - step.start, -1)
                found[layer][first : first + len(together), step.start : step.stop] = of_chunks
            report(first + len(together) * step.stop / n_ctx)
    return RoutedText(np.array(chunks, np.int64), found)


def _piece_of(vocab: Vocab) -> Callable[[int], str]:
    """Return what shows a token: its text in quotes, with line ends and other controls escaped."""

    def piece(token: int) -> str:
        text = vocab.piece(token)
        return json.dumps(text.decode("utf-8", "replace"), ensure_ascii=False) if text else f"token {token}"

    return piece
