"""The ASGI app that forwards accepted requests to the host's unix socket and streams the answers."""

import asyncio
import contextlib
import json
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from mixcli.host.protocol.paths import HEALTH, LOADING, READY
from mixcli.serve.chat_page import PageFile
from mixcli.serve.gate import Accepted, Gate, Headers, Preflight, only
from mixcli.serve.limits import Held, Limits
from mixcli.serve.refusal import (
    MAX_BODY,
    TOO_LARGE,
    TOO_SLOW,
    TORN,
    UNLOADED,
    UNRESPONSIVE,
    Header,
    Refusal,
    unavailable,
)
from mixcli.serve.upstream import HOST, LoadFailed, Upstream

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SHOWN_TO_ALL = ("status", "progress")  # of /health
SECRET = {"path", "pid"}  # of /health: not shown to clients
REQUEST_ID = b"x-request-id"
MAX_ID = 128  # characters of a client's own
KEPT = (  # headers of an answer that go back
    b"content-type",
    b"retry-after",
    b"cache-control",
    b"idempotent-replayed",
    b"allow",
)
PASSED = (b"content-type", b"idempotency-key")  # headers of a request that go on
CLIENT = b"x-mixcli-client"  # tells the host whose Idempotency-Key it is; a client cannot send it itself
MODEL_GONE = (httpx2.NetworkError, httpx2.RemoteProtocolError)

WHOLE_BODY = 120.0  # seconds for a request's body
LINGER = 1.0  # seconds in which the body of a refused request is read, so that its client gets the answer


@dataclass
class _Exchange:
    """One request and the way back to its client; every answer has an id, and what a web page's browser must know."""

    scope: Scope
    receive: Receive
    transmit: Send
    own_headers: list[Header]
    has_begun: bool = False

    @property
    def headers(self) -> Headers:
        headers: Headers = self.scope["headers"]
        return headers

    async def start(self, status: int, headers: list[Header]) -> None:
        self.has_begun = True
        everything = [*headers, *self.own_headers]
        await self.transmit({"type": "http.response.start", "status": status, "headers": everything})

    async def piece(self, body: bytes, *, more: bool) -> None:
        await self.transmit({"type": "http.response.body", "body": body, "more_body": more})

    async def whole(self, status: int, headers: list[Header], body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.piece(body, more=False)

    async def refuse(self, refusal: Refusal, extra: tuple[Header, ...] = ()) -> None:
        body = refusal.body(self.scope["path"])
        await self.whole(refusal.status, [*refusal.headers, *extra], body)

    async def gone(self) -> None:
        """Return when the client has left."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Proxy:
    """Serves one host, as `gate` and `limits` have it."""

    def __init__(self, gate: Gate, limits: Limits, upstream: Upstream) -> None:
        self._gate, self._limits, self._upstream = gate, limits, upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope = _in_origin_form(scope)
        origin = only(scope["headers"], b"origin")
        own = [(REQUEST_ID, _request_id(scope["headers"])), *self._gate.cors.headers(origin)]
        exchange = _Exchange(scope, receive, send, own)
        try:
            await self._exchange(exchange)
        except Exception:  # a bug; the client of a request that it did not concern must not see another's
            traceback.print_exc(file=sys.stderr)
            if exchange.has_begun:
                raise
            await exchange.refuse(
                Refusal(500, "server_error", "internal error of the server; see its output")
            )

    async def _exchange(self, exchange: _Exchange) -> None:
        verdict = self._gate.judge(exchange.scope["method"], exchange.scope["path"], exchange.headers)
        if isinstance(verdict, Preflight):
            exchange.own_headers = exchange.own_headers[:1]
            await exchange.start(204, verdict.headers)
            await exchange.piece(b"", more=False)
            return
        if isinstance(verdict, PageFile):
            status, headers, content = verdict.answer(only(exchange.headers, b"if-none-match"))
            await exchange.start(status, headers)
            await exchange.piece(content, more=False)
            return
        if isinstance(verdict, Accepted) and verdict.route.loads_model:
            verdict = self._limits.crowded(verdict.client) or verdict
        if isinstance(verdict, Refusal):
            await _turn_away(exchange, verdict)
            return
        if not verdict.route.loads_model:
            await self._watched(exchange, verdict, b"")
            return
        with self._limits.running(verdict.client) as held:
            body = await _body(exchange, held)
            if isinstance(body, Refusal):
                await _turn_away(exchange, body)
            elif body is not None:
                await self._watched(exchange, verdict, body)

    async def _watched(self, exchange: _Exchange, accepted: Accepted, body: bytes) -> None:
        """Answer, unless the client leaves or the host falls silent before."""
        work = asyncio.create_task(self._answer(exchange, accepted, body))
        gone = asyncio.create_task(exchange.gone())
        silent = asyncio.create_task(self._upstream.silent())
        try:
            done, _ = await asyncio.wait({work, gone, silent}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, silent, work):
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        if silent in done and not exchange.has_begun:
            await exchange.refuse(UNRESPONSIVE)

    async def _answer(self, exchange: _Exchange, accepted: Accepted, body: bytes) -> None:
        client = self._upstream.client
        if client is None:
            if not accepted.route.loads_model:
                await self._look_while_loading(exchange, accepted)
                return
            client = await self._upstream.ready()
        try:
            await _pass_on(client, exchange, accepted, body)
        except _NotBegun:
            if not accepted.route.loads_model:
                await exchange.refuse(_health_of(UNLOADED) if accepted.route.path == HEALTH else UNLOADED)
                return
            try:
                await _pass_on(await self._upstream.revived(client), exchange, accepted, body)
            except (LoadFailed, _NotBegun) as error:
                message = f"the model process crashed and cannot be started again: {error.__cause__ or error}"
                await exchange.refuse(unavailable(message))

    async def _look_while_loading(self, exchange: _Exchange, accepted: Accepted) -> None:
        progress = round(self._upstream.progress, 3)
        refusal = unavailable(f"the model is loading ({progress:.0%}); retry in a few seconds", retry_after=2)
        if accepted.route.path == HEALTH:
            refusal = unavailable(refusal.message, 2, status=LOADING, progress=progress)
        await exchange.refuse(refusal)


def _in_origin_form(scope: Scope) -> Scope:
    """Return a request whose target is a whole address (RFC 9112, 3.2.2) as one with a path; the host of the address counts, not the header."""
    scheme, mark, rest = scope["path"].partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return scope
    authority, _, path = rest.partition("/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    host = (b"host", authority.encode("latin-1", "replace"))
    return {**scope, "path": f"/{path}", "headers": [*headers, host]}


def _request_id(headers: Headers) -> bytes:
    """Return the id of a request: its client's, or a new one."""
    sent = only(headers, REQUEST_ID) or ""
    is_usable = len(sent) <= MAX_ID and sent.isascii() and sent.isprintable()
    return sent.encode() if sent and is_usable else b"req_" + uuid.uuid4().hex.encode()


class _NotBegun(Exception):
    """The host ended before its answer began."""


async def _pass_on(client: httpx2.AsyncClient, exchange: _Exchange, accepted: Accepted, body: bytes) -> None:
    headers = [(name, value) for name, value in exchange.headers if name.lower() in PASSED]
    headers += [(CLIENT, b"serve-" + accepted.client.hex().encode()), exchange.own_headers[0]]
    url = HOST + quote(accepted.path, safe="/", errors="surrogatepass")
    request = client.build_request(accepted.route.method, url, headers=headers, content=body)
    last = b""
    has_begun = False
    try:
        response = await client.send(request, stream=True)
        async with contextlib.aclosing(response):
            has_begun = True
            kept = [(name, value) for name, value in response.headers.raw if name.lower() in KEPT]
            if accepted.route.path == HEALTH:
                status, shown = _public_health(await response.aread(), is_brief=accepted.is_brief)
                await exchange.whole(status, kept, shown)
                return
            await exchange.start(response.status_code, kept)
            async for piece in response.aiter_raw():
                last = piece
                await exchange.piece(piece, more=True)
            await exchange.piece(b"", more=False)
    except MODEL_GONE as error:
        if not has_begun:
            raise _NotBegun from error
        if last.endswith(b"\n\n"):  # a stream between two events
            await exchange.piece(TORN.event(accepted.path), more=False)
        # any other answer is incomplete: uvicorn closes the connection


def _public_health(raw: bytes, *, is_brief: bool) -> tuple[int, bytes]:
    """Return the status and what a client may know of the host's state."""
    state = json.loads(raw)
    shown = {
        name: value
        for name, value in state.items()
        if (name in SHOWN_TO_ALL if is_brief else name not in SECRET)
    }
    return 200 if state.get("status") == READY else 503, json.dumps(shown).encode()


def _health_of(refusal: Refusal) -> Refusal:
    return unavailable(refusal.message, status="unloaded")


async def _body(exchange: _Exchange, held: Held) -> bytes | Refusal | None:
    """Read a request's body; None where the client is gone."""
    pieces: list[bytes] = []
    try:
        async with asyncio.timeout(WHOLE_BODY):
            while True:
                message = await exchange.receive()
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


async def _turn_away(exchange: _Exchange, refusal: Refusal) -> None:
    """Refuse a request whose body was not read. Some of it is read first, or the client may not see the answer; then the connection ends."""
    length, coding = only(exchange.headers, b"content-length"), only(exchange.headers, b"transfer-encoding")
    left = length not in (None, "0") or coding is not None
    if left and only(exchange.headers, b"expect") is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while left:
                    message = await exchange.receive()
                    left = message["type"] == "http.request" and bool(message.get("more_body"))
    await exchange.refuse(refusal, ((b"connection", b"close"),) if left else ())
