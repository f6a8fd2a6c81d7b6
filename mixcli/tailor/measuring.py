"""Measure a model once: the statistics of a pass over texts, and what each candidate type does to each tensor. Both are kept and reused."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.insight.imatrix import ImatrixRequest, compute
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from mixcli.system import paths
from mixcli.system.console import Bar, console
from mixcli.system.locks import exclusive
from mixcli.system.trimming import trim
from mixcli.tailor.reader import TextReader
from mixcli.tailor.subject import TailorSubject
from quantize import ggml
from quantize.bindings import VERSION
from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix, read_imatrix
from quantize.tailor.choice import TailoringProblem, is_free
from quantize.tailor.error_table import measure_errors
from quantize.tailor.objective import losses
from quantize.tailor.statistics import Statistics, has_counts, read_statistics
from quantize.writer import Supply

KEPT = 1 << 30  # bytes of measurements in the cache; those that were used longest ago are removed
SENSITIVITY_CHUNKS = 4  # of the pass beside an importance matrix that a person gives: 256 tokens are enough


@dataclass(frozen=True)
class ReadTexts:
    """The texts of the pass, their name in the file, and how many chunks of them are read; None for all. `asked_by` is the option that chose them."""

    pieces: tuple[TextPiece, ...]
    dataset: str
    n_chunks: int | None = None
    asked_by: str | None = None


@dataclass(frozen=True)
class PassResult:
    """The statistics, and the importance matrix that the quantizers get, with its file."""

    statistics: Statistics
    imatrix: Imatrix
    imatrix_path: Path


def read_texts(
    subject: TailorSubject,
    reader: TextReader,
    texts: ReadTexts,
    given: Path | None,
    load_options: LoadOptions,
) -> PassResult:
    """Return the statistics of a pass over the texts; an importance matrix that a person gives is used in place of its own.

    Raises UsageError where a person chose texts, and the file that was given has the statistics of its own.
    """
    if given is not None:
        imatrix = read_imatrix(given)
        imatrix.check_model(subject.model.tensors)
        free = [tensor for tensor in subject.model.tensors if is_free(tensor)]
        names = [tensor.name for tensor in subject.model.tensors]
        for note in imatrix.coverage([tensor.name for tensor in free], names):
            console.note(f"note: {note}")
        if has_counts(given) and (known := read_statistics(given)).n_tokens:
            known.check_model(free, given.name)
            if texts.asked_by:
                raise UsageError(
                    f"{texts.asked_by} has no effect with {given.name}, which has the statistics of its own text; remove one of them"
                )
            return PassResult(known, imatrix, given)
        path = _pass(subject, reader, texts, texts.n_chunks or SENSITIVITY_CHUNKS, load_options)
        return PassResult(read_statistics(path), imatrix, given)
    path = _pass(subject, reader, texts, texts.n_chunks, load_options)
    return PassResult(read_statistics(path), read_imatrix(path), path)


def _pass(
    subject: TailorSubject,
    reader: TextReader,
    texts: ReadTexts,
    n_chunks: int | None,
    load_options: LoadOptions,
) -> Path:
    pieces, kv = repr([one.to_data() for one in texts.pieces]), load_options.request.kv
    key = _digest(subject.model.fingerprint, reader.identity, pieces, n_chunks, kv, VERSION)
    path = _folder(key) / f"{subject.name}.imatrix.gguf"
    if path.exists():
        os.utime(path)
    else:
        request = ImatrixRequest(texts.pieces, texts.dataset, n_chunks=n_chunks, with_sensitivity=True)
        model = reader.model()
        with console.progress(f"computing the importance matrix with {model.label}") as bar:
            compute(model, request, load_options, path, bar)
    return path


def measured_problem(
    subject: TailorSubject,
    found: PassResult,
    candidates: Sequence[GGMLQuantizationType],
    bar: Bar,
    n_threads: int = 0,
    supply: Supply | None = None,
) -> TailoringProblem:
    """Return what each candidate costs each free tensor; an interrupted measurement resumes."""
    key = _digest(subject.model.fingerprint, found.statistics.digest, found.imatrix.digest, ggml.version())
    folder = _folder(key)
    path = folder / f"{'-'.join(one.name for one in candidates)}.errors"
    with exclusive(folder / "lock", seconds=1, what=f"measuring {subject.name}"):
        table = measure_errors(
            [tensor for tensor in subject.model.tensors if is_free(tensor)],
            candidates,
            found.statistics,
            found.imatrix,
            path,
            key,
            n_threads=n_threads,
            progress=bar.update,
            supply=supply,
        )
        os.utime(path)
    trim(folder.parent, "*/*.*", KEPT, path, found.imatrix_path)
    return TailoringProblem(subject.model.tensors, tuple(candidates), losses(table, found.statistics))


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _folder(key: str) -> Path:
    return paths.private(paths.private(paths.cache_dir() / "tailor") / key)
