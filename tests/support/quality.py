"""What a quantized file loses: importance matrices and divergence of small models on the texts that ship, computed in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.importance import InputSquares, sum_up
from mixcli.insight.compute.perplexity import evaluate
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, PerplexityOrder, TextReading, n_at_once
from mixcli.insight.pieces import CALIBRATION, HELD_OUT, TextPiece, shipped
from mixcli.insight.statistics import TextScores
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import Matmuls, Tap
from profiles.placement import Placement
from quantize import Options, convert

N_CTX = 128  # tokens of a chunk


def part_of(name: str, n_characters: int) -> tuple[TextPiece, ...]:
    """Return the beginning of every text of CALIBRATION or HELD_OUT: five languages, code and conversations, as plain text."""
    found: dict[str, TextPiece] = {}
    for piece in shipped(name):
        text = "\n\n".join(said for _, said in piece.turns) + "\n" if piece.turns else piece.text
        before = found.get(piece.name, TextPiece(piece.name, piece.kind))
        found[piece.name] = replace(before, text=(before.text + text)[:n_characters])
    return tuple(found.values())


def importance(model: Path, target: Path, n_characters: int = 1 << 20, n_threads: int = 1) -> Path:
    """Write the importance matrix of a model on the calibration texts."""
    reading = reading_of(model, part_of(CALIBRATION, n_characters), n_threads=n_threads)
    sums = ImportanceSums()
    tap = Matmuls(InputSquares(sums, with_output=False))
    partial = target.with_name(f"{target.name}.part")
    partial.unlink(missing_ok=True)
    with loaded(reading, tap) as (opened, context):
        sum_up(ImatrixOrder(reading, partial, "test"), opened, context, sums, _silent, _silent)
    partial.unlink()
    write_imatrix(target, sums.entries, N_CTX, "calibration")
    return target


def quantized(
    source: Path, target: Path, file_type: str, imatrix: Path | None = None, n_threads: int = 1
) -> Path:
    """Quantize a model as `mixcli quantize` does."""
    convert(source, target, Options(output_type=file_type, imatrix=imatrix, n_threads=n_threads))
    return target


def baseline(model: Path, kept: Path, n_characters: int = 700, n_threads: int = 1) -> Path:
    """Write the distributions of a model on the held-out texts, from which `divergence` measures."""
    reading = reading_of(model, part_of(HELD_OUT, n_characters), n_threads=n_threads)
    with loaded(reading) as (opened, context):
        evaluate(PerplexityOrder(reading, write_baseline=kept), opened, context, _silent, _silent)
    return kept


def divergence(model: Path, kept: Path, n_characters: int = 700, n_threads: int = 1) -> dict[str, TextScores]:
    """Return a model's scores on the held-out texts against a baseline of as many characters, by text; "all" is of all together."""
    reading = reading_of(model, part_of(HELD_OUT, n_characters), n_threads=n_threads)
    with loaded(reading) as (opened, context):
        result = evaluate(PerplexityOrder(reading, read_baseline=kept), opened, context, _silent, _silent)
    rows = result["rows"]
    assert isinstance(rows, list)
    return {row.name: row for row in map(TextScores.from_data, rows)}


@contextmanager
def loaded(reading: TextReading, tap: Tap | None = None) -> Iterator[tuple[Model, Context]]:
    """Yield a model and its context, with cells of its own for each chunk."""
    placement = reading.plan.placement
    with (
        Model.load(reading.path, placement) as model,
        Context(model, placement, kv_unified=False, tap=tap) as context,
    ):
        yield model, context


def reading_of(
    model: Path, pieces: tuple[TextPiece, ...], n_ctx: int = N_CTX, n_threads: int = 1
) -> TextReading:
    """Return how texts are read, in chunks of `n_ctx` tokens."""
    n = n_at_once(n_ctx)
    placement = Placement(
        n_ctx=n * n_ctx,
        n_batch=512,
        n_ubatch=512,
        n_seq_max=n,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        repack=False,
    )
    return TextReading(model, LoadPlan(placement), pieces, n_ctx)


def _silent(*_: object) -> None:
    """Report nothing."""
