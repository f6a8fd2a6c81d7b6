"""Open what --tools names: a JSON file, a Python file, or the command that starts an MCP server."""

import contextlib
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.request.schema_limits import fault_of_tool
from mixcli.system.console import console
from mixcli.system.text import clean, missing, shown
from mixcli.tools.json_file import DefinedTools, ServerCommand, read
from mixcli.tools.toolbox import Toolbox, ToolSource

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def open_tools(words: Sequence[str], *, to_run: bool) -> Toolbox:
    """Return the tools of all `words`, whose processes run until it is closed. With `to_run`, tools that are only defined are refused.

    Raises UsageError for a word that names nothing, and for a schema that is too deep or too large, MixcliError for a server that does not start.
    """
    with contextlib.ExitStack() as stack:
        sources: list[ToolSource] = []
        for word in words:
            with console.if_slow(f"starting the tools of {shown(word)}"):
                for source in _sources(word, to_run=to_run):
                    stack.callback(source.close)
                    _check(source)
                    sources.append(source)
        stack.pop_all()
    return Toolbox(sources)


def _check(source: ToolSource) -> None:
    """Refuse what no request can contain, naming the source and the tool."""
    for spec in source.specs:
        fault = fault_of_tool(spec.parameters)
        if clean(spec.description) != spec.description:
            fault = "its description contains a lone surrogate (\\ud800 to \\udfff); write whole characters"
        if fault:
            raise UsageError(f"--tools {shown(source.name)}: tool {shown(spec.name)}: {fault}")


def _sources(word: str, *, to_run: bool) -> Iterator[ToolSource]:
    path = Path(word)
    if path.suffix == ".py" and _is_file(word):
        from mixcli.tools.python_file import PythonTools

        yield PythonTools(path)
        return
    if path.suffix != ".json" or not _is_file(word):
        yield _server(_command_of(word))
        return
    found = read(path)
    if isinstance(found, DefinedTools):
        if to_run:
            raise UsageError(
                f"{shown(path)} only defines tools and cannot run them; pass a Python file or an MCP server"
            )
        yield found
        return
    yield from map(_server, found)


def _is_file(word: str) -> bool:
    """Return whether a word is the path of a file, not a command that ends with one."""
    return Path(word).exists() or len(word.split()) == 1


def _server(command: ServerCommand) -> ToolSource:
    if shutil.which(command.command) is None:
        raise UsageError(_not_a_command(command))
    from mixcli.tools.mcp_server import McpTools

    return McpTools(command)


def _not_a_command(command: ServerCommand) -> str:
    """Return why a command cannot be started."""
    advice = "pass a .py or .json file, or the command that starts an MCP server"
    program = Path(command.command)
    if "/" not in command.command:
        return f"--tools {shown(command.name)}: command {shown(command.command)} not found; {advice}"
    if not program.exists():
        return missing(command.command)
    kind = "a folder" if program.is_dir() else "neither a .py or .json file nor executable"
    return f"--tools {shown(command.command)} is {kind}; {advice}"


def _command_of(word: str) -> ServerCommand:
    if not word.strip():
        raise UsageError(
            "--tools is empty; pass a .py or .json file, or the command that starts an MCP server"
        )
    if _ADDRESS.match(word):
        raise UsageError(
            f"--tools {word}: addresses are not supported; pass the command that starts the server"
        )
    try:
        command, *arguments = shlex.split(word)
    except ValueError as error:
        raise UsageError(f"--tools {word!r:.80}: {error}") from None
    if not command:
        raise UsageError(f"--tools {word}: the command is empty; check that the shell variable is set")
    return ServerCommand(word, command, arguments)


__all__ = ["open_tools"]
