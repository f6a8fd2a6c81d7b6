"""Compute the importance matrix of a model, and resume one that was interrupted."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import MixcliError
from mixcli.insight import job
from mixcli.insight.imatrix_file import is_imatrix, is_partial, read_partial, write_imatrix
from mixcli.insight.importance import ExpertCoverage, coverage, smoothed
from mixcli.insight.orders import N_CTX, ImatrixOrder, TextReading
from mixcli.insight.pieces import TextPiece, check_length
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.console import Bar
from mixcli.system.locks import exclusive
from quantize.output_target import output_target, refuse_foreign

NO_STDOUT = "an importance matrix cannot be written to {}: it is not written in order; pass a file with -o"


@dataclass(frozen=True)
class ImatrixRequest:
    """The texts of an importance matrix and how they are read: in chunks of `n_ctx` tokens, `n_chunks` at most (None for all).

    `dataset` is the name of the text that the file records. With `with_output` the output matrix counts too. Experts that saw fewer
    tokens than `smooth` are brought to that number by the average of their layer; 0 leaves all as they are. `with_sensitivity` adds what
    errors of outputs cost, which a tailored file is made from.
    """

    pieces: tuple[TextPiece, ...]
    dataset: str
    n_ctx: int = N_CTX
    n_chunks: int | None = None
    with_output: bool = False
    smooth: int = 0
    with_sensitivity: bool = False


@dataclass(frozen=True)
class ImatrixReport:
    """What was written: tokens and chunks that were read, tensors of the file, and the coverage of experts, fewest tokens first."""

    path: Path
    n_tokens: int
    n_chunks: int
    n_tensors: int
    experts: Sequence[ExpertCoverage]


def compute(
    stored: StoredModel, request: ImatrixRequest, load_options: LoadOptions, target: Path, bar: Bar
) -> ImatrixReport:
    """Read the texts with the model and write the matrix to `target`; an interrupted run with the same text resumes.

    Raises UsageError for a text that is too short, BadTarget for a target that is something else, InUse where another process writes the
    same file, and the errors of a load.
    """
    target = output_target(target, stored.parts, stdout=NO_STDOUT)
    refuse_foreign(target, is_imatrix, "is not an importance matrix")
    partial = output_target(target.with_name(f"{target.name}.part"))
    refuse_foreign(partial, is_partial, "is not an unfinished importance matrix")
    check_length(request.pieces, request.n_ctx)
    run = run_of(stored, request, load_options)
    lock = paths.runtime_dir() / f"{hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:16]}.lock"
    with exclusive(lock, seconds=1, what=f"computing {target.name}"):
        reading = TextReading(
            stored.path.absolute(),
            job.plan_reading(stored, load_options, request.n_ctx),
            request.pieces,
            request.n_ctx,
            request.n_chunks,
        )
        order = ImatrixOrder(
            reading,
            partial.absolute(),
            run,
            request.with_output,
            with_sensitivity=request.with_sensitivity,
        )
        result = job.run(order, stored.label, bar)
        found = read_partial(partial, run)
        if found is None:
            raise MixcliError(f"{partial} was changed or removed meanwhile; rerun the command")
        entries = smoothed(found.entries, request.smooth) if request.smooth else found.entries
        write_imatrix(target, entries, request.n_ctx, request.dataset)
        partial.unlink(missing_ok=True)
    return ImatrixReport(
        target, result["n_tokens"], result["n_chunks"], len(entries), coverage(found.entries)
    )


def run_of(stored: StoredModel, request: ImatrixRequest, load_options: LoadOptions) -> str:
    """Return what identifies a run: the files of the model, the texts, how they are cut, and what computes them; smoothing comes afterwards."""
    pieces = [piece.to_data() for piece in request.pieces]
    parts = (request.n_ctx, request.n_chunks, request.with_output, request.with_sensitivity)
    return job.key_of(stored, load_options, pieces, *parts)
