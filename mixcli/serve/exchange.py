"""One request and the way back to its client: reading its body, refusing it, and comments while a stream waits."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mixcli.host.protocol.body_limits import MAX_BODY, WHOLE_BODY
from mixcli.serve.gate import Headers, only
from mixcli.serve.limits import Held
from mixcli.serve.refusal import TOO_LARGE, TOO_SLOW, Header, Refusal

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

REQUEST_ID = b"x-request-id"
MAX_ID = 128  # characters of a client's own
EVENT_STREAM = b"text/event-stream"
EVENTS: list[Header] = [
    (b"content-type", EVENT_STREAM + b"; charset=utf-8"),
    (b"cache-control", b"no-store"),
]

LINGER = 1.0  # seconds in which the body of a refused request is read, so that its client gets the answer


@dataclass
class Exchange:
    """One request and the way back to its client; every answer has an id, and what a web page's browser must know.

    `has_comments` says that the answer began as a stream before its model was asked, `is_between_events` that a stream can be ended by an event:
    what was sent last is the end of one, or its head.
    """

    scope: Scope
    receive: Receive
    transmit: Send
    own_headers: list[Header]
    has_begun: bool = False
    has_comments: bool = False
    is_between_events: bool = False

    @property
    def headers(self) -> Headers:
        headers: Headers = self.scope["headers"]
        return headers

    async def start(self, status: int, headers: list[Header]) -> None:
        self.has_begun = True
        self.is_between_events = any(
            name == b"content-type" and value.startswith(EVENT_STREAM) for name, value in headers
        )
        everything = [*headers, *self.own_headers]
        await self.transmit({"type": "http.response.start", "status": status, "headers": everything})

    async def piece(self, body: bytes, *, more: bool) -> None:
        if body:
            self.is_between_events = body.endswith(b"\n\n")
        await self.transmit({"type": "http.response.body", "body": body, "more_body": more})

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.piece(body, more=False)

    async def comment(self, text: str) -> None:
        """Send a comment of server-sent events, which clients skip; the first one begins the answer, as a stream."""
        if not self.has_begun:
            self.has_comments = True
            await self.start(200, EVENTS)
        await self.piece(f": {text}\n\n".encode(), more=True)

    async def refuse(self, refusal: Refusal, extra: tuple[Header, ...] = ()) -> None:
        """Answer with an error: as the last event where the answer has begun as a stream."""
        if self.has_comments:
            await self.piece(refusal.event(self.scope["path"]), more=False)
            return
        body = refusal.body(self.scope["path"])
        await self.whole(refusal.status, [*refusal.headers, *extra], body)

    async def break_off(self, refusal: Refusal, path: str) -> None:
        """End an answer that has begun: a stream with an error event; any other one stays incomplete, and the server closes its connection."""
        if self.is_between_events:
            await self.piece(refusal.event(path), more=False)

    async def gone(self) -> None:
        """Return when the client has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def turn_away(self, refusal: Refusal) -> None:
        """Refuse a request whose body was not read.

        Some of it is read first, or the client may not see the answer; then the connection ends.
        """
        length, coding = only(self.headers, b"content-length"), only(self.headers, b"transfer-encoding")
        left = length not in (None, "0") or coding is not None
        if left and only(self.headers, b"expect") is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    while left:
                        message = await self.receive()
                        left = message["type"] == "http.request" and bool(message.get("more_body"))
        await self.refuse(refusal, ((b"connection", b"close"),) if left else ())

    async def body(self, held: Held) -> bytes | Refusal | None:
        """Read the request's body; None where the client is gone."""
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(WHOLE_BODY):
                while True:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        return None
                    pieces.append(message.get("body", b""))
                    if refusal := held.add(len(pieces[-1])):
                        return refusal
                    if held.n_bytes > MAX_BODY:
                        return TOO_LARGE
                    if not message.get("more_body"):
                        return b"".join(pieces)
        except TimeoutError:
            return TOO_SLOW


def in_origin_form(scope: Scope) -> Scope:
    """Return a request whose target is a whole address (RFC 9112, 3.2.2) as one with a path; the host of the address counts, not the header."""
    scheme, mark, rest = scope["path"].partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return scope
    authority, _, path = rest.partition("/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    host = (b"host", authority.encode("latin-1", "replace"))
    return {**scope, "path": f"/{path}", "headers": [*headers, host]}


def request_id(headers: Headers) -> bytes:
    """Return the id of a request: its client's, or a new one."""
    sent = only(headers, REQUEST_ID) or ""
    is_usable = len(sent) <= MAX_ID and sent.isascii() and sent.isprintable()
    return sent.encode() if sent and is_usable else b"req_" + uuid.uuid4().hex.encode()
