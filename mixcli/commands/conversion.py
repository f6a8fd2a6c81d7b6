"""Options, dry run and execution that `convert` and `quantize` share."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from mixcli.commands.options import F, with_options
from mixcli.errors import UsageError
from mixcli.store.file_types import file_type, tensor_type
from mixcli.system.console import console
from mixcli.system.formatting import about_time, counted, format_bytes, size_in_bytes
from mixcli.system.text import as_argument, not_a_file
from profiles.shape import tensor_class

if TYPE_CHECKING:
    from quantize import Progress
    from quantize.plan import WritePlan


@dataclass(frozen=True)
class Choices:
    """What the command line says about the result, as it was written."""

    output: Path | None
    pure: bool
    imatrix: Path | None
    recipe: Path | None
    token_embedding_type: str | None
    output_tensor_type: str | None
    tensor: tuple[str, ...]
    threads: int
    max_memory: str
    split_max_size: str
    dry_run: bool
    as_json: bool


TAILORED = "tailored"  # in place of a quant in the name of a file

allow_requantize_option = click.option(
    "--allow-requantize", is_flag=True, help="Allow requantizing quantized tensors, which loses quality."
)


def conversion_options(command: F) -> F:
    """Add the options of a conversion; the command gets them as one `choices`."""
    file = click.Path(path_type=Path)
    options: tuple[Callable[[F], F], ...] = (
        click.option("-o", "--output", type=file, metavar="FILE", help="Output GGUF. Default: named after the source, in this folder."),
        click.option("--tensor", multiple=True, metavar="REGEX=TYPE", help="Override the type of matching tensors; may be repeated, the first match wins."),
        click.option("--token-embedding-type", metavar="TYPE", help="Override the type of the token embedding."),
        click.option("--output-tensor-type", metavar="TYPE", help="Override the type of the output matrix."),
        click.option("--pure", is_flag=True, help="Use the same type for all matrices."),
        click.option("--imatrix", type=file, metavar="FILE", help="Importance matrix (GGUF or .dat); required by some quants."),
        click.option("--recipe", type=file, metavar="FILE", help="Take the type of every tensor from a tailored GGUF or its recipe.json, instead of a quant."),
        click.option("--threads", type=click.IntRange(min=0), default=0, metavar="N", help="Number of threads. Default: one per core."),
        click.option("--max-memory", default="1GiB", show_default=True, metavar="SIZE", help="Limit working memory; the memory-mapped source does not count."),
        click.option("--split-max-size", default="0", metavar="SIZE", help="Split the output into shards of at most this size."),
        click.option("--dry-run", is_flag=True, help="Show types, sizes, disk and memory use; write nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )  # fmt: skip

    @wraps(command)
    def collect(**said: Any) -> Any:
        choices = Choices(**{field.name: said.pop(field.name) for field in fields(Choices)})
        return command(choices=choices, **said)

    return with_options(cast(F, collect), options)


def run(source: Path, output_type: str | None, choices: Choices, **more: Any) -> None:
    """Convert or show what would be; the path of the result goes to stdout. `more` are further fields of quantize's Options."""
    from quantize import Options, execute, prepare

    for path in (None if source.is_dir() else source, choices.imatrix, choices.recipe):
        if path is not None and not path.is_file():
            raise UsageError(not_a_file(path))

    options = Options(
        output_type=output_type and file_type(output_type),
        pure=choices.pure,
        imatrix=choices.imatrix,
        recipe=choices.recipe,
        token_embedding_type=choices.token_embedding_type and tensor_type(choices.token_embedding_type),
        output_tensor_type=choices.output_tensor_type and tensor_type(choices.output_tensor_type),
        tensor_types=tuple(_pair(text) for text in choices.tensor),
        n_threads=choices.threads,
        max_memory=size_in_bytes(choices.max_memory),
        split_max_size=size_in_bytes(choices.split_max_size),
        **more,
    )
    plan = prepare(
        source,
        choices.output or _default_target(source, TAILORED if options.recipe else options.output_type),
        options,
    )
    for note in plan.notes:
        console.note(f"note: {note}")
    if choices.dry_run:
        _show_ledger(plan, choices.as_json)
        return
    with console.progress(f"writing {plan.target.name}", unit="bytes") as bar:

        def show(at: "Progress") -> None:
            bar.update(at.done, at.total, at.stage)

        report = execute(plan, show)
    if report.started_over:
        console.note("discarded a partial file of another source or other options")
    elif report.n_bytes_resumed:
        console.note(f"resumed after {format_bytes(report.n_bytes_resumed)} of an earlier run")
    console.note(
        f"wrote {format_bytes(report.n_bytes)} in {report.seconds:.1f} s; try it: mixcli chat -m {as_argument(report.paths[0])}"
    )
    if choices.as_json:
        console.data(
            {
                "files": [str(path) for path in report.paths],
                "bytes": report.n_bytes,
                "seconds": report.seconds,
            }
        )
    else:
        for path in report.paths:
            console.path(path)


def _pair(text: str) -> tuple[str, str]:
    pattern, equals, name = text.rpartition("=")
    if not equals or not pattern or not name:
        raise UsageError(f"--tensor {text!r} is not REGEX=TYPE, such as 'ffn_down_exps=Q6_K'")
    return pattern, tensor_type(name)


def _default_target(source: Path, output_type: str | None) -> Path:
    is_gguf = source.suffix == ".gguf"
    ending = output_type or ("COPY" if is_gguf else "Q4_K_M")
    return Path(f"{source.stem if is_gguf else source.resolve().name}-{ending}.gguf")


def _show_ledger(plan: "WritePlan", as_json: bool) -> None:
    from quantize.write_time import estimated_seconds

    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for tensor in plan.tensors:
        key = (tensor_class(tensor.source.name), tensor.type.name)
        count, n_bytes = totals.get(key, (0, 0))
        totals[key] = (count + 1, n_bytes + tensor.n_bytes)
    data = {
        "files": [{"path": str(file.path), "bytes": file.size} for file in plan.files],
        "tensors": [
            {"class": what, "type": kind, "tensors": count, "bytes": n_bytes}
            for (what, kind), (count, n_bytes) in totals.items()
        ],
        "bytes_disk": plan.bytes_disk,
        "bytes_memory": plan.bytes_memory,
        "threads": plan.n_workers,
        "seconds": estimated_seconds(plan),
    }
    rows = [
        (what, kind, str(count), format_bytes(n_bytes)) for (what, kind), (count, n_bytes) in totals.items()
    ]
    console.result(data, ("TENSORS", "TYPE", "COUNT", "SIZE"), rows, as_json=as_json)
    if as_json:
        return
    for file in plan.files:
        console.line(f"{file.path}: {format_bytes(file.size)}")
    console.line(
        f"peak disk {format_bytes(plan.bytes_disk)}, working memory {format_bytes(plan.bytes_memory)}, {counted(plan.n_workers, 'thread')}, {about_time(estimated_seconds(plan))}"
    )
