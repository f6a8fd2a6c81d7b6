"""Tools of an MCP server that a command starts: one process, spoken to over its stdin and stdout.

The official package `mcp` speaks the protocol, in an event loop in a thread. A server gets none of the user's variables but those that every
program needs; it ends with the command that started it, also when that is killed.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import IO, Any

import pydantic

from mixcli.errors import MixcliError, UsageError
from mixcli.system import tether
from mixcli.system.python_words import validation_text
from mixcli.tools.json_file import ServerCommand
from mixcli.tools.toolbox import CALL_SECONDS, FunctionSpec, ToolFailed

START_SECONDS = 60.0  # for a server to start and to list its tools: npx and uvx may download it first
GRACE = 5.0  # seconds beyond the time limit of a call, in which the library ends it itself
MAX_PAGES = 100  # of a list of tools
MAX_TOOLS = 512  # of a request, which has all of them
MAX_TAIL = 1 << 13  # bytes of a server's log that are read for its last words
MAX_SAID = 500  # characters of a server's last words
INSTALL = "pip install '.[tools]' in mixcli's repository"


class McpTools:
    """The tools of one server (a ToolSource), which runs until `close`. MixcliError names a server that does not start."""

    def __init__(self, server: ServerCommand) -> None:
        try:
            import mcp
            from anyio.from_thread import start_blocking_portal
        except ImportError:
            raise MixcliError(
                f"the package mcp, which connects to MCP servers, is not installed; run {INSTALL}"
            ) from None
        for logger in (logging.getLogger("mcp"), logging.getLogger("client")):
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
        self.name = server.name
        self.notes: Sequence[str] = ()
        self._mcp: Any = mcp
        deadline = time.monotonic() + START_SECONDS
        with contextlib.ExitStack() as stack:
            self._log: IO[str] = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            self._portal = stack.enter_context(start_blocking_portal())
            try:
                self._client, leave = self._started(server)
                stack.callback(leave)
                self.specs = list(self._listed(deadline))
            except Exception as error:
                raise MixcliError(
                    f"the MCP server {self.name!r} cannot be used: {self._why(error)}"
                ) from error
            if not self.specs:
                raise UsageError(f"the MCP server {self.name!r} has no tools")
            self._stack = stack.pop_all()

    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """Return the text of a result."""
        try:
            result = self._waited(CALL_SECONDS, self._client.call_tool, name, dict(arguments), CALL_SECONDS)
        except Exception as error:
            raise ToolFailed(f"the MCP server {self.name!r} failed: {self._why(error)}") from error
        text = "\n".join(map(_shown, result.content))
        if not text and result.structured_content is not None:
            text = json.dumps(result.structured_content, ensure_ascii=False)
        if result.is_error:
            raise ToolFailed(text or "the tool failed without a message")
        return text

    def close(self) -> None:
        """End the server: its input is closed, and a few seconds later it is killed."""
        self._stack.close()

    def _started(self, server: ServerCommand) -> "tuple[Any, Any]":
        """Return a client that is connected, and what ends it."""
        import anyio

        mcp = self._mcp
        parameters = mcp.StdioServerParameters(
            command=sys.executable,
            args=["-I", "-S", tether.__file__, str(os.getpid()), server.command, *server.arguments],
            env=dict(server.variables),
        )
        begun: Future[tuple[Any, anyio.Event]] = Future()

        async def run() -> None:
            leaving = anyio.Event()
            async with mcp.Client(mcp.stdio_client(parameters, errlog=self._log)) as client:
                begun.set_result((client, leaving))
                await leaving.wait()

        running = self._portal.start_task_soon(run)
        running.add_done_callback(lambda done: _pass_on(done, begun))
        try:
            client, leaving = begun.result(START_SECONDS)
        except BaseException:
            running.cancel()
            raise

        def leave() -> None:
            self._portal.call(leaving.set)
            with contextlib.suppress(Exception):  # of a server that broke while it ended
                running.result()

        return client, leave

    def _listed(self, deadline: float) -> Iterator[FunctionSpec]:
        """Yield all tools; MixcliError where the list does not end within bounds, TimeoutError where it does not until `deadline`."""
        cursor, n_tools = None, 0
        for _ in range(MAX_PAGES):
            left = max(0.0, deadline - time.monotonic())
            page = self._waited(left, lambda at: self._client.list_tools(cursor=at), cursor)
            n_tools += len(page.tools)
            if n_tools > MAX_TOOLS:
                raise MixcliError(f"it has more than {MAX_TOOLS} tools; start it with fewer")
            for tool in page.tools:
                yield FunctionSpec(tool.name, tool.description or tool.title or "", dict(tool.input_schema))
            cursor = page.next_cursor
            if cursor is None:
                return
        raise MixcliError(f"its list of tools has more than {MAX_PAGES} pages")

    def _waited(self, seconds: float, work: Any, *arguments: object) -> Any:
        """Return what a coroutine of the client returns; Ctrl-C cancels it on the server too."""
        future = self._portal.start_task_soon(work, *arguments)
        try:
            return future.result(seconds + GRACE)
        except BaseException:
            future.cancel()
            raise

    def _why(self, error: BaseException) -> str:
        """Return what is known of a failure: of a server that is gone the last line that it wrote."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TimeoutError):
            return f"no response after {START_SECONDS:.0f} s"
        if isinstance(error, pydantic.ValidationError):
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            return f"its response violates the protocol: {place}: {validation_text(first)}"
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), MAX_TAIL, max(0, size - MAX_TAIL))
        said = tail.decode("utf-8", "replace").strip().splitlines()
        is_gone = getattr(error, "code", None) == self._mcp.types.CONNECTION_CLOSED
        what = "it has ended" if is_gone else " ".join(str(error).split())[:MAX_SAID] or type(error).__name__
        return f"{what}; its last output: {said[-1][:MAX_SAID]}" if said and is_gone else what


def _pass_on(done: "Future[None]", begun: "Future[Any]") -> None:
    """End the wait for the beginning where there will be none."""
    if not begun.done():
        error = None if done.cancelled() else done.exception()
        begun.set_exception(error or TimeoutError())


def _shown(block: Any) -> str:
    """Return a part of a result as text; of an image, a sound or a file its kind and size."""
    if block.type == "text":
        text: str = block.text
        return text
    inner = getattr(block, "resource", block)
    if isinstance(inside := getattr(inner, "text", None), str):
        return inside
    data = getattr(inner, "data", None) or getattr(inner, "blob", None)
    size = f", {len(data) * 3 // 4:,} bytes" if data else ""
    where = f" {inner.uri}" if getattr(inner, "uri", None) else ""
    return f"[{block.type}{where}, {getattr(inner, 'mime_type', None) or 'unknown type'}{size}: not shown]"


__all__ = ["McpTools"]
