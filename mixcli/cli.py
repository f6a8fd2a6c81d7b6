"""The command table, and the one place that turns errors into exit codes.

Only the chosen command's module is imported: `mixcli --help` needs click and nothing else.
"""

import errno
import gc
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from mixcli import __version__
from mixcli.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, DoesNotFit, MixcliError, UsageError
from mixcli.system import signals
from mixcli.system.console import MIN_WIDTH, console
from mixcli.system.environment import VARIABLES

# name: (module, one line for `mixcli --help`); each module has a click command called `command`
COMMANDS = {
    "pull": ("mixcli.commands.pull", "Download a model."),
    "list": ("mixcli.commands.list", "List the models on this machine."),
    "show": ("mixcli.commands.show", "Show a model's size, experts, tensor types and license."),
    "search": ("mixcli.commands.search", "Search the catalog of models."),
    "rm": ("mixcli.commands.rm", "Remove a model."),
    "verify": ("mixcli.commands.verify", "Verify the checksums of installed models."),
    "import": ("mixcli.commands.import_", "Import a GGUF file."),
    "default": ("mixcli.commands.default", "Show or set the default model."),
    "convert": ("mixcli.commands.convert", "Convert a checkpoint to GGUF, or repair an old GGUF."),
    "quantize": ("mixcli.commands.quantize", "Quantize a GGUF to a smaller type."),
    "imatrix": ("mixcli.commands.imatrix", "Compute an importance matrix, for better small quants."),
    "tailor": ("mixcli.commands.tailor", "Quantize a model to fit this machine best."),
    "perplexity": (
        "mixcli.commands.perplexity",
        "Measure a model's perplexity, or its divergence from another quant.",
    ),
    "compare": ("mixcli.commands.compare", "Compare quants of a model by size, quality and speed."),
    "experts": ("mixcli.commands.experts", "Show which experts of a mixture a text activates."),
    "plan": ("mixcli.commands.plan", "Plan where a model's tensors go, and estimate its speed."),
    "tune": ("mixcli.commands.tune", "Benchmark placements of a model and keep the fastest."),
    "bench": ("mixcli.commands.bench", "Measure prefill and decode against what the hardware allows."),
    "doctor": ("mixcli.commands.doctor", "Check this machine for problems."),
    "profiles": ("mixcli.commands.profiles", "List, show and create hardware profiles."),
    "worker": ("mixcli.commands.worker", "Share this machine's memory with another machine."),
    "run": ("mixcli.commands.run", "Answer one prompt; for scripts and pipes."),
    "batch": ("mixcli.commands.batch", "Run a prompt on every record of a file; resumable."),
    "chat": ("mixcli.commands.chat", "Chat with a model in the terminal."),
    "serve": ("mixcli.commands.serve", "Serve a model over an OpenAI-compatible API."),
    "sessions": ("mixcli.commands.sessions", "List, search and export conversations."),
    "ps": ("mixcli.commands.ps", "List loaded models."),
    "top": ("mixcli.commands.top", "Monitor loaded models and servers."),
    "stop": ("mixcli.commands.stop", "Unload a model."),
    "help": ("mixcli.commands.help", "Show the help of a command."),
}
# as `mixcli --help` lists them
GROUPS = {
    "Models": (
        "pull",
        "search",
        "list",
        "show",
        "default",
        "rm",
        "verify",
        "import",
        "convert",
        "quantize",
        "tailor",
    ),
    "Quality": ("compare", "perplexity", "imatrix", "experts"),
    "Ask": ("run", "chat", "batch", "sessions"),
    "Serve": ("serve", "ps", "top", "stop"),
    "Machine": ("plan", "tune", "bench", "doctor", "profiles", "worker", "help"),
}


class CommandTable(click.Group):
    """A click group over COMMANDS that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        from mixcli.system.parameter_types import as_text

        as_text(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from mixcli.system.usage_hints import no_such_command

            raise UsageError(no_such_command(args[0], COMMANDS, "mixcli"))
        found = super().resolve_command(ctx, args)
        if ctx.meta.get(_FROM_SHELL):
            signals.listen()  # the command is imported: from here on Ctrl-C is an error like others
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))  # one column for all groups
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment"):
            formatter.write_dl([*VARIABLES.items()])


@click.command(
    cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="mixcli", message="%(prog)s %(version)s")
def cli() -> None:
    """Run Mixtral and the Mistral family on the machine you already own.

    Everything runs locally. Start with `mixcli pull demo` and `mixcli chat -m demo`.
    """


_FROM_SHELL = "mixcli.cli.from_shell"


def main() -> NoReturn:
    """Run the command line and exit with the codes of mixcli/errors.py."""
    gc.set_threshold(50_000)  # a start makes many objects and hardly any garbage
    _speak_utf8()
    if "_MIXCLI_COMPLETE" in os.environ:
        _complete()
    try:
        if narrow := _narrow():
            from mixcli.system.narrow_help import NarrowFormatter

            click.Context.formatter_class = NarrowFormatter
        with cli.make_context("mixcli", sys.argv[1:], terminal_width=narrow) as context:
            context.meta[_FROM_SHELL] = True
            cli.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
        code = 0
    except BaseException as error:
        code = _exit_code_of(error)
    signals.let_go()
    _settle()
    sys.exit(code)


def _complete() -> NoReturn:
    """Answer a shell that asks for completions: where a line cannot be completed there are none, and nothing is written into that line."""
    try:
        cli.main(prog_name="mixcli")
    except Exception:
        if _is_debugged():
            raise
        sys.exit(1)


def _narrow() -> int | None:
    """Return the width of help where click, which draws for 50 columns at least, would be too wide; None elsewhere."""
    columns = shutil.get_terminal_size().columns
    return max(columns - 1, MIN_WIDTH) if columns < 52 else None


def _speak_utf8() -> None:
    """Read and write UTF-8 in any locale, as pipes and terminals expect; replace what cannot be encoded."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace" if stream is sys.stdin else "mixcli")


def _settle() -> None:
    """Keep Python from failing at exit over what could not be written."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _exit_code_of(error: BaseException) -> int:
    """Show an error in one sentence and return its exit code; a bug is raised again and keeps its traceback."""
    for kind, show in SHOWN:
        if isinstance(error, kind):
            return show(error)
    raise error


def _ended(error: Any) -> int:
    return int(error.code)


def _exit(error: Any) -> int:
    if error.exit_code == 0:  # --help or --version, which click writes
        return _written()
    return int(error.exit_code)


def _no_arguments(error: Any) -> int:
    click.echo(error.format_message())
    return _written()


def _written() -> int:
    """Return the exit code of what click wrote to stdout, which is silent about one that is closed."""
    try:
        console.check_stdout()
    except MixcliError as error:
        return _ours(error)
    return 0


def _usage(error: Any) -> int:
    from mixcli.system.usage_hints import sentence

    where = error.ctx.command_path if error.ctx else "mixcli"
    variable = _variable_of(error)
    words = f"{variable}: {error.message.removesuffix('.')}" if variable else sentence(error, sys.argv[1:])
    console.error(f"{words} (see {where} --help)")
    return UsageError.exit_code


def _variable_of(error: Any) -> str:
    """Return the environment variable that an option's value came from; nothing where the command line has it."""
    param = getattr(error, "param", None)
    if not error.ctx or not isinstance(param, click.Option) or not param.name:
        return ""
    source = error.ctx.get_parameter_source(param.name)
    return str(param.envvar) if source is click.core.ParameterSource.ENVIRONMENT else ""


def _interrupted(error: Any) -> int:
    console.begin_line()
    console.note("; ".join(("interrupted", *map(str, error.args))))
    return EXIT_INTERRUPTED


def _broken_pipe(_error: Any) -> int:
    _forget_stdout()
    return EXIT_BROKEN_PIPE


def _refused(error: Any) -> int:
    if hasattr(error, "exit_code") or _is_debugged():
        return _ours(error)
    from mixcli.system.os_errors import translated

    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        _forget_stdout()
    return _ours(translated(error) or error)


def _ours(error: Any) -> int:
    code = getattr(error, "exit_code", None)
    if not isinstance(code, int) or _is_debugged():
        raise error
    console.error(str(error))
    return code


def _out_of_memory(error: Any) -> int:
    if _is_debugged():
        raise error
    console.error(
        "not enough memory; close other programs, raise the limit (ulimit -v), or use a smaller input"
    )
    return DoesNotFit.exit_code


def _is_debugged() -> bool:
    """Return whether MIXCLI_DEBUG asks for the traceback of an error that is shown as a sentence otherwise."""
    return os.environ.get("MIXCLI_DEBUG", "").lower() not in {"", "0", "no", "off", "false"}


def _forget_stdout() -> None:
    """Keep Python from flushing into a broken stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


# what a write fails with; Python would try once more at exit, and complain
UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

# the first matching row decides the message and the exit code
SHOWN: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[Any], int]], ...] = (
    (signals.Ended, _ended),
    (click.exceptions.Exit, _exit),
    (click.exceptions.NoArgsIsHelpError, _no_arguments),
    (click.UsageError, _usage),
    ((click.Abort, KeyboardInterrupt), _interrupted),
    (BrokenPipeError, _broken_pipe),
    ((OSError, RuntimeError), _refused),
    (MemoryError, _out_of_memory),
    (Exception, _ours),
)


if __name__ == "__main__":
    main()
