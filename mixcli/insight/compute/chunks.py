"""Read chunks of equal length in the order of llama.cpp's own programs: some at once, each from an empty cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Vocab

Chunk = Sequence[int]  # token ids


def cut(tokens: Sequence[int], n_ctx: int, vocab: Vocab) -> list[list[int]]:
    """Cut token ids into chunks of `n_ctx`; the rest is left out.

    Each chunk is a text of its own: its first token becomes the beginning of sequence where the vocabulary wants one, as in
    llama-perplexity. The ids begin with it then too.
    """
    bos = [vocab.bos] if vocab.adds_bos else []
    whole = [*bos, *tokens]
    chunks = [whole[start : start + n_ctx] for start in range(0, len(whole) - n_ctx + 1, n_ctx)]
    return [[*bos, *chunk[len(bos) :]] for chunk in chunks]


@dataclass(frozen=True)
class ChunkStep:
    """One micro-batch: positions start to stop of every chunk that is read, chunk by chunk; logits from position `first_logits` on."""

    start: int
    stop: int
    first_logits: int


class ChunkReader:
    """Reads chunks with a context that has cells of its own for each of its sequences."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._batch = Batch(context.n_ubatch)

    def read(self, chunks: Sequence[Chunk], first_logits: int = 0) -> Iterator[ChunkStep]:
        """Compute chunks of one length together, with logits from position `first_logits` on, and yield after each micro-batch.

        llama.cpp makes the same micro-batches of a batch of whole chunks: as many tokens of each, as go into it together.
        """
        self._context.clear()
        n_ctx, width = len(chunks[0]), self._batch.capacity // len(chunks)
        for start in range(0, n_ctx, width):
            stop = min(start + width, n_ctx)
            first = min(max(first_logits, start), stop)
            self._batch.clear()
            for sequence, chunk in enumerate(chunks):
                self._batch.extend(chunk[start:stop], start, sequence, n_logits=stop - first)
            self._context.decode(self._batch)
            yield ChunkStep(start, stop, first)
