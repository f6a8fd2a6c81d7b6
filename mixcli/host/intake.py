"""Bound the size of each request body and of all running requests together.

A body that is one byte too long is refused as soon as that is known; when the host holds enough, more is turned away for a moment (503).
One that is not complete in time is refused (408), so that clients that stop in the middle hold nothing.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mixcli.errors import Busy, MixcliError, UsageError
from mixcli.host.protocol.body_limits import MAX_BODY, MAX_HELD, WHOLE_BODY
from mixcli.host.protocol.errors import error_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class _Refused(Exception):
    """A body that is not read to its end, with the answer to it."""

    def __init__(self, status: int, error: MixcliError) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


class Intake:
    """ASGI middleware that counts bytes of bodies from their arrival until the answer is written."""

    def __init__(self, app: App, max_body: int = MAX_BODY, max_held: int = MAX_HELD) -> None:
        self._app, self._max_body, self._max_held = app, max_body, max_held
        self._n_held = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Run the app with a body that is counted; answer 413 or 503 where it is too much, 408 where it is too late."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_own = 0
        answered = whole = False
        deadline = asyncio.get_running_loop().time() + WHOLE_BODY

        async def counted() -> Message:
            nonlocal n_own, whole
            if whole:  # what comes now is the client's end
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _Refused(
                    408, UsageError(f"the request body was incomplete after {WHOLE_BODY:.0f} s")
                ) from None
            whole = not message.get("more_body")
            if message["type"] == "http.request":
                n = len(message.get("body", b""))
                n_own += n
                self._n_held += n
                self._check(n_own)
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            self._check(_content_length(scope), announced=True)
            await self._app(scope, counted, noted)
        except _Refused as refused:
            if not answered:
                await _answer(send, refused, scope["path"])
        finally:
            self._n_held -= n_own

    def _check(self, n_bytes: int, *, announced: bool = False) -> None:
        if n_bytes > self._max_body:
            raise _Refused(
                413, UsageError(f"the request body is larger than {self._max_body:,} bytes; shorten it")
            )
        n_held = self._n_held + (n_bytes if announced else 0)
        if n_held > self._max_held:
            raise _Refused(
                503,
                Busy(
                    f"the running requests and this one hold {n_held:,} bytes; the limit is {self._max_held:,}; "
                    "retry in a few seconds"
                ),
            )


def _content_length(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _answer(send: Send, refused: _Refused, path: str) -> None:
    body = json.dumps(error_body(refused.error)[1].to_json_at(path, refused.status)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")]  # the rest of the body is not read
    if refused.status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
