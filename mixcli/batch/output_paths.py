"""Check the output and journal paths of a batch before anything is read or loaded."""

import os
import re
from pathlib import Path

from mixcli.errors import UsageError
from quantize.output_target import is_stream, output_target, refuse_foreign

STDOUT = "results go to stdout without -o; remove -o or pass a file"
# how a line of results begins, and what it has in it: lines of a BatchJob, and those of OpenAI's batches
_RESULT = re.compile(rb'\{"id": .*?"(?:result|error|response)": ', re.DOTALL)
_REVIEWED = re.compile(rb'\{"id": .*?, "doubt": [0-9.e-]+, "abstained": ', re.DOTALL)


def check_targets(source: str, out: Path | None, journal: Path | None, others: tuple[Path, ...] = ()) -> None:
    """Raise UsageError or QuantizeError, or the system's OSError with the name of the path, where output or journal cannot be written, or
    would destroy an input or a file that no batch has written.
    """
    for option, path in (("-o", out), ("--journal", journal)):
        if path is None:
            continue
        if option == "-o" and is_stream(path):
            continue
        for read in (*([Path(source)] if source != "-" else []), *others):
            if _is_same(path, read):
                raise UsageError(f"{option} {path} is an input and would be overwritten; choose another file")
        target = output_target(path, stdout=STDOUT)
        if option == "-o":
            refuse_foreign(target, is_results, "holds no results of mixcli batch")
        elif target.exists() and not os.access(target, os.W_OK):
            raise UsageError(
                f"{option} {path} is not writable; change its permissions or choose another file"
            )
    if out is not None and journal is not None:
        for written in (out, part_of(out)):
            if _is_same(journal, written):
                raise UsageError(f"--journal {journal} is also the output file; choose another file")
    if out is not None and not is_stream(out):
        _check_part(part_of(out))


def checked_review(path: Path, source: str, out: Path | None, journal: Path | None) -> Path:
    """Return where the review list is written; raise UsageError or QuantizeError where it cannot be, or would replace something else."""
    target = output_target(path, stdout="--review needs a file of its own; pass one")
    written = (path, part_of(path))
    if source != "-" and any(_is_same(one, Path(source)) for one in written):
        raise UsageError(f"--review {path} is an input and would be overwritten; choose another file")
    others = [("-o", out), ("-o", part_of(out) if out else None), ("--journal", journal)]
    for option, other in others:
        if other is not None and any(_is_same(one, other) for one in written):
            raise UsageError(f"--review {path} is also the file of {option}; choose another file")
    refuse_foreign(target, is_review, "holds no review list of mixcli batch")
    _check_part(part_of(path))
    return target


def part_of(out: Path) -> Path:
    """Return the path of the unfinished output: beside the final file, with links resolved."""
    target = Path(os.path.realpath(out))
    return target.with_name(target.name + ".part")


def is_results(beginning: bytes) -> bool:
    """Return whether a file begins with a line of results; a line that is longer than what was read may be one."""
    line, end, _ = beginning.partition(b"\n")
    return _RESULT.match(line) is not None or (not end and line.startswith(b'{"id": '))


def is_review(beginning: bytes) -> bool:
    """Return whether a file begins with a line of a review list."""
    return _REVIEWED.match(beginning.partition(b"\n")[0]) is not None


def _check_part(part: Path) -> None:
    """Refuse to write over something of that name that no batch has written."""
    if not part.exists() and not part.is_symlink():
        return
    if not part.is_file() or part.is_symlink():
        raise UsageError(f"{part} is not a regular file, and results are written there first; move it away")
    with part.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise UsageError(f"{part} holds other data, and results are written there first; move it away")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return Path(os.path.realpath(path)) == Path(os.path.realpath(other))
