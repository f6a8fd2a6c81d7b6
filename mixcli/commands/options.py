"""Options that several commands share, declared once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from mixcli.commands.completion import complete_models
from mixcli.errors import UsageError
from mixcli.request.sampling_table import RANGES, Range, texts_fault
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.request.settings import Value

F = TypeVar("F", bound=Callable[..., Any])


# a name or text that may be a path instead: its bytes are kept as they are, since they may name a file
NAME_OR_PATH = click.UNPROCESSED


def with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """Add options to a command, so that its help lists them in the order in which they are given."""
    for option in reversed(options):
        command = option(command)
    return command


def common(command: F) -> F:
    """Add what every command has: --quiet and --color/--no-color."""

    def set_quiet(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        console.configure(quiet=value or None)

    def set_color(_ctx: click.Context, _param: click.Parameter, value: bool | None) -> None:
        console.configure(color=value)

    command = click.option(
        "--color/--no-color",
        default=None,
        expose_value=False,
        callback=set_color,
        help="Force colored output on or off.",
    )(command)
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=set_quiet,
        help="Suppress notes and progress on stderr.",
    )(command)


def model_option(command: F) -> F:
    """Add -m/--model."""
    return click.option(
        "-m",
        "--model",
        type=NAME_OR_PATH,
        envvar="MIXCLI_MODEL",
        metavar="MODEL",
        shell_complete=complete_models,
        help="Name of an installed model (see `mixcli list`) or path of a .gguf file; env: MIXCLI_MODEL. Default: the model that `mixcli default` shows, or the only one.",
    )(command)


# MODEL of a command that uses the default model, or the only installed one, where none is named
model_argument = click.argument(
    "model", required=False, type=NAME_OR_PATH, envvar="MIXCLI_MODEL", shell_complete=complete_models
)
# a text that a command reads in chunks
TEXT_FILE = click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False)
BUILT_IN_TEXT = "Default: the built-in text, in five languages with code and conversations."
texts_option = click.option(
    "--text",
    "paths",
    type=TEXT_FILE,
    multiple=True,
    metavar="FILE",
    help=f"Text to read; - is stdin; may be repeated. {BUILT_IN_TEXT}",
)

forecast_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Estimate how long it takes here, or with --profile, and exit. MODEL need not be installed.",
)


def json_option(command: F) -> F:
    """Add --json, for programs that read the output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def tools_option(text: str) -> Callable[[F], F]:
    """Return --tools: what a model may call."""
    return click.option("--tools", type=NAME_OR_PATH, multiple=True, metavar="FILE|COMMAND", help=text)


def _purpose(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    from profiles.request import work_of

    work_of(value)  # raises for an invalid purpose
    return value


purpose_option = click.option(
    "--for",
    "purpose",
    metavar="chat|batch|PROMPT+ANSWER",
    callback=_purpose,
    default="chat",
    show_default=True,
    help="Workload to optimize for: one conversation, many requests at once, or prompt and answer tokens such as 3000+100.",
)


_CONTEXT = click.option(
    "--ctx",
    "n_ctx",
    type=click.IntRange(min=64),
    metavar="TOKENS",
    help="Context length. Default: the largest that fits, up to 8192.",
)
_CHUNK = click.option(
    "--ctx",
    "n_ctx",
    type=click.IntRange(min=64, max=1 << 20),
    default=512,
    show_default=True,
    metavar="TOKENS",
    help="Tokens per chunk; each chunk is processed with an empty KV cache.",
)
_PLANNING = (
    click.option(
        "--profile",
        envvar="MIXCLI_PROFILE",
        metavar="NAME",
        help="Hardware profile (see `mixcli profiles list`). Default: auto (this machine).",
    ),
    click.option("--vram", metavar="SIZE", help="Use at most SIZE of memory on each GPU, such as 22GiB."),
    click.option("--ram", metavar="SIZE", help="Use at most SIZE of host memory, such as 48GiB."),
    click.option(
        "--kv",
        type=click.Choice(("auto", "f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")),
        help="KV cache type. Default: auto (f16, or q8_0 if f16 does not fit).",
    ),
    click.option(
        "--worker",
        "workers",
        multiple=True,
        metavar="HOST:PORT",
        help="Offload to a machine that runs `mixcli worker`; may be repeated.",
    ),
    click.option(
        "--from-disk",
        is_flag=True,
        help="Read experts that do not fit in memory from disk; slow.",
    ),
)


def planning_options(command: F) -> F:
    """Add what a plan is made for: context, profile, budgets, cache type, workers, disk; the command gets one `load_options`."""
    return _planned(command, _CONTEXT)


def reading_options(command: F) -> F:
    """Add the same for a command that reads texts in chunks; `load_options` has the tokens of a chunk as its context."""
    chunks = click.option(
        "--chunks",
        "n_chunks",
        type=click.IntRange(min=1),
        metavar="N",
        help="Read only the first N chunks. The built-in text begins with English: 1 or 2 chunks leave out most of it.",
    )
    return chunks(_planned(command, _CHUNK))


def _planned(command: F, context: Callable[[F], F]) -> F:

    @wraps(command)
    def collect(
        n_ctx: int | None,
        profile: str | None,
        vram: str | None,
        ram: str | None,
        kv: str | None,
        workers: tuple[str, ...],
        from_disk: bool,
        **others: Any,
    ) -> Any:
        from mixcli.planning.load_options import LoadOptions
        from mixcli.system.formatting import size_in_bytes
        from profiles.request import PlanRequest

        if workers:
            from mixcli.system.worker_address import worker_address

            workers = tuple(map(worker_address, workers))
        if twice := next((one for one in workers if workers.count(one) > 1), None):
            raise UsageError(f"--worker {twice} is given twice; pass it once")
        load_options = LoadOptions(
            PlanRequest(n_ctx=n_ctx, kv=kv, from_disk=from_disk),
            profile,
            None if vram is None else size_in_bytes(vram),
            None if ram is None else size_in_bytes(ram),
            workers,
        )
        return command(load_options=load_options, **others)

    return with_options(cast(F, collect), (context, *_PLANNING))


def draft_option(command: F) -> F:
    """Add --draft, after the options of planning: the command's `load_options` have the file of the draft model."""

    @wraps(command)
    def collect(draft: str | None, **others: Any) -> Any:
        if draft is not None:
            from mixcli.store.store import find

            others["load_options"] = replace(others["load_options"], draft=str(find(draft).path))
        return command(**others)

    return click.option(
        "--draft",
        type=NAME_OR_PATH,
        metavar="MODEL",
        shell_complete=complete_models,
        help="Smaller model with the same vocabulary for speculative decoding. The answer stays the same; off if the plan expects no gain.",
    )(cast(F, collect))


class _Number(click.ParamType):  # type: ignore[type-arg]
    """A number in the range that the engine accepts for a sampling parameter."""

    def __init__(self, limits: Range) -> None:
        self.limits = limits
        self.name = "integer" if limits.whole else "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return self.limits.read(str(value))
        except ValueError:
            self.fail(f"{str(value)!r:.60}; use {self.limits.text}", param, ctx)


def _number(name: str) -> Callable[[F], F]:
    """Return the option of a sampling parameter, from the table of all of them."""
    row = RANGES[name]
    return click.option(
        f"--{name.replace('_', '-')}",
        type=_Number(row),
        metavar="N",
        help=f"{row.help[0].upper()}{row.help[1:]}.",
    )


def _stops(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    if fault := texts_fault("--stop", texts):
        raise UsageError(fault)
    return texts


class Sampling(NamedTuple):
    """The sampling options of the command line; None if an option was not given."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    seed: int | None
    stop: tuple[str, ...]
    speculate: bool | None

    def said(self) -> "dict[str, Value]":
        """Return only the options that the command line sets."""
        return {key: value for key, value in self._asdict().items() if value not in (None, ())}


def sampling_options(command: F) -> F:
    """Add how tokens are chosen; the command gets one `sampling`."""
    options = (
        *(_number(name) for name in Sampling._fields if name in RANGES),
        click.option(
            "--stop",
            multiple=True,
            metavar="TEXT",
            callback=_stops,
            help="Stop before this text; may be repeated.",
        ),
        click.option(
            "--speculate",
            is_flag=True,
            default=None,
            help="Speculative decoding by prompt lookup. The answer stays the same; faster on a GPU where the text repeats; off on a CPU.",
        ),
    )

    @wraps(command)
    def collect(**said: Any) -> Any:
        sampling = Sampling(**{name: said.pop(name) for name in Sampling._fields})
        return command(sampling=sampling, **said)

    return with_options(cast(F, collect), options)
