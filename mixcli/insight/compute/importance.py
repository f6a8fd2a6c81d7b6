"""Sum up what goes into a model's matrices while it reads, chunk by chunk, and keep what is done."""

import time
from collections.abc import Callable

from mixcli.errors import UsageError
from mixcli.insight.compute.chunks import ChunkReader, cut
from mixcli.insight.compute.sensitivity import MIN_ROWS, Sensitivity
from mixcli.insight.compute.tokens import stream
from mixcli.insight.imatrix_file import PartialSums, read_partial, write_partial
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, n_at_once
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import Matmul, MatmulObserver, Matmuls, Tap, Taps, UntilOutput
from mixcli.system.formatting import counted

OUTPUT = "output.weight"


class InputSquares:
    """The MatmulObserver of an importance matrix."""

    def __init__(self, sums: ImportanceSums, *, with_output: bool) -> None:
        self._sums, self._with_output = sums, with_output

    def accepts(self, weight: str, n_rows: int, *, is_stack: bool) -> bool:
        if is_stack:
            return True
        return n_rows >= MIN_ROWS and (weight.startswith("blk.") or (self._with_output and weight == OUTPUT))

    def observe(self, matmul: Matmul) -> None:
        if matmul.experts is None:
            self._sums.add(matmul.weight, matmul.shape, matmul.values)
        else:
            self._sums.add_experts(matmul.weight, matmul.shape[0], matmul.values, matmul.experts)


class Both:
    """Two MatmulObservers as one, so that an input is shown once."""

    def __init__(self, first: MatmulObserver, second: MatmulObserver) -> None:
        self._first, self._second = first, second
        self._takers: dict[str, list[MatmulObserver]] = {}

    def accepts(self, weight: str, n_rows: int, *, is_stack: bool) -> bool:
        self._takers[weight] = [
            one for one in (self._first, self._second) if one.accepts(weight, n_rows, is_stack=is_stack)
        ]
        return bool(self._takers[weight])

    def observe(self, matmul: Matmul) -> None:
        for one in self._takers[matmul.weight]:
            one.observe(matmul)


def tap_of(order: ImatrixOrder, sums: ImportanceSums) -> Tap:
    """Return the tap that adds to the sums what an order asks for."""
    squares = InputSquares(sums, with_output=order.with_output)
    taps: list[Tap] = [Matmuls(squares)]
    if order.with_sensitivity:
        sensitivity = Sensitivity(sums)
        taps = [Matmuls(Both(squares, sensitivity)), sensitivity.stream]
    return Taps(*taps, *([] if order.with_output else [UntilOutput()]))


def sum_up(
    order: ImatrixOrder,
    model: Model,
    context: Context,
    sums: ImportanceSums,
    report: Callable[[float, float, str], None],
    note: Callable[[str], None],
) -> dict[str, object]:
    """Read the texts with a context whose tap fills `sums`, and leave the result in the order's `partial`; return what was read.

    Raises UsageError for texts of less than one chunk.
    """
    reading = order.reading
    tokens = stream(model, reading.pieces, note, reading.n_enough)
    chunks = cut(tokens, reading.n_ctx, model.vocab)[: reading.n_chunks]
    if not chunks:
        raise UsageError(
            f"the text is {counted(len(tokens), 'token')} long, less than one chunk of {reading.n_ctx:,}; "
            "use a longer text or a smaller --ctx"
        )
    before = read_partial(order.partial, order.run)
    done = before.n_done if before else 0
    sums.entries = before.entries if before else {}
    if 0 < done < len(chunks):
        note(f"resuming after {done:,} of {len(chunks):,} chunks")
    reader, saved = ChunkReader(context), time.monotonic()
    while done < len(chunks):
        together = chunks[done : done + n_at_once(reading.n_ctx)]
        for step in reader.read(together):
            report(done + len(together) * step.stop / reading.n_ctx, len(chunks), "")
        done += len(together)
        if done == len(chunks) or time.monotonic() - saved >= order.save_interval:
            write_partial(order.partial, PartialSums(order.run, done, sums.entries))
            saved = time.monotonic()
    return {"n_chunks": done, "n_tokens": done * reading.n_ctx}
