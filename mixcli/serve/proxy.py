"""The ASGI app that forwards accepted requests to the host's unix socket and streams the answers."""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from mixcli.serve.gate import MAX_BODY, Gate, Headers, Refusal, too_large

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SECRET = {"path", "pid"}  # of /health: not shown to clients
KEPT = (
    b"content-type",
    b"retry-after",
    b"cache-control",
    b"idempotent-replayed",
)  # headers of an answer that go back
PASSED = (
    b"content-type",
    b"idempotency-key",
)  # headers of a request that go on; a client cannot send CLIENT itself
CLIENT = b"x-mixcli-client"  # tells the host whose Idempotency-Key it is: a hash of the API key, or of none
MODEL_GONE = (httpx2.NetworkError, httpx2.RemoteProtocolError)


LOOKS = ("/health", "/v1/models")
WHOLE_BODY = 120.0  # seconds for a request's body
SILENCE = 30.0  # seconds without a sign of life from the host
POLL_INTERVAL = 5.0  # seconds between two looks at it, while it computes
UNLOADED = Refusal(503, "server_error", "no model is loaded; the next completion request loads it again")
TORN = Refusal(
    503, "server_error", "the model process ended during the answer; retry to load the model again"
)
UNRESPONSIVE = Refusal(
    503,
    "server_error",
    "the model process does not respond; end it with `mixcli stop`, the next request starts another",
)


class Proxy:
    """Serves one host. `revive` starts it again when its process died, and gives its socket (called in a thread)."""

    def __init__(self, gate: Gate, socket: Path, revive: Callable[[], Path]) -> None:
        self._gate, self._revive = gate, revive
        self._client = _client(socket)
        self._reviving = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path, headers = scope["method"], scope["path"], scope["headers"]
        refusal = self._gate.refusal(method, path, headers)
        try:
            async with asyncio.timeout(WHOLE_BODY):
                body = b"" if refusal else await _body(receive)
        except TimeoutError:
            body, refusal = (
                b"",
                Refusal(408, "invalid_request_error", "timed out while reading the request body"),
            )
        if body is None:
            refusal = too_large()
        if refusal is not None:
            await _refuse(send, refusal)
            return
        passed = [(name, value) for name, value in headers if name.lower() in PASSED]
        passed.append((CLIENT, _client_of(headers)))
        begun: list[bool] = []

        async def sending(message: dict[str, Any]) -> None:
            begun[:] = [True]
            await send(message)

        work = asyncio.create_task(self._answer(method, path, passed, body or b"", sending))
        gone = asyncio.create_task(_disconnected(receive))
        silent = asyncio.create_task(self._silent())
        done, _ = await asyncio.wait({work, gone, silent}, return_when=asyncio.FIRST_COMPLETED)
        for task in (gone, silent, work):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        if silent in done and not begun:
            await _refuse(send, UNRESPONSIVE)

    async def _silent(self) -> None:
        """Return when the host gives no sign of life for SILENCE; one that is gone or loads is another matter."""
        alive = time.monotonic()
        while time.monotonic() - alive < SILENCE:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                await self._client.get("http://host/health", timeout=POLL_INTERVAL)
            except httpx2.TimeoutException:
                continue
            except httpx2.HTTPError:
                pass
            alive = time.monotonic()

    async def close(self) -> None:
        """Close the connections to the host."""
        await self._client.aclose()

    async def _answer(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes, send: Send
    ) -> None:
        client = self._client
        try:
            await _pass_on(client, method, path, headers, body, send)
        except _NotBegun:
            if path in LOOKS:  # a look at a model loads none
                await _refuse(send, UNLOADED)
                return
            try:
                client = await self._revived(client)
                await _pass_on(client, method, path, headers, body, send)
            except Exception as error:  # whatever it is, the client gets a sentence
                message = (
                    f"the model process ended, and could not be started again: {error.__cause__ or error}"
                )
                await _refuse(send, Refusal(503, "server_error", message))

    async def _revived(self, dead: httpx2.AsyncClient) -> httpx2.AsyncClient:
        async with self._reviving:
            if self._client is dead:
                self._client = _client(await asyncio.to_thread(self._revive))
        return self._client


class _NotBegun(Exception):
    """The host ended before its answer began."""


async def _pass_on(
    client: httpx2.AsyncClient,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    send: Send,
) -> None:
    request = client.build_request(method, f"http://host{path}", headers=headers, content=body)
    begun, last = False, b""
    try:
        response = await client.send(request, stream=True)
        async with contextlib.aclosing(response):
            begun = True
            if path == "/health":
                await _send(send, response.status_code, json.dumps(_public(await response.aread())).encode())
                return
            kept = [(name, value) for name, value in response.headers.raw if name.lower() in KEPT]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for piece in response.aiter_raw():
                last = piece
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    except MODEL_GONE as error:
        if not begun:
            raise _NotBegun from error
        if last.endswith(b"\n\n"):  # a stream between two events
            event = b"data: " + _error(TORN) + b"\n\n"
            await send({"type": "http.response.body", "body": event})
        # any other answer is incomplete: uvicorn closes the connection


def _client_of(headers: Headers) -> bytes:
    """Name a client by the key that it sent, without showing the key; clients that sent none are one client."""
    sent = b"\0".join(value for name, value in headers if name.lower() == b"authorization")
    return b"serve-" + hashlib.sha256(b"mixcli serve\0" + sent).hexdigest().encode()


def _public(raw: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(raw).items() if name not in SECRET}


def _client(socket: Path) -> httpx2.AsyncClient:
    transport = httpx2.AsyncHTTPTransport(uds=str(socket), limits=httpx2.Limits(max_keepalive_connections=0))
    return httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False)


async def _body(receive: Receive) -> bytes | None:
    """Read a request's body; None when it is too large."""
    pieces, n_bytes = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""  # the client is gone
        piece = message.get("body", b"")
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > MAX_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(pieces)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, refusal: Refusal) -> None:
    extra = [(b"retry-after", b"5")] if refusal.status == 503 else []
    await _send(send, refusal.status, _error(refusal), extra)


def _error(refusal: Refusal) -> bytes:
    error = {"message": refusal.message, "type": refusal.kind, "param": None, "code": None}
    return json.dumps({"error": error}).encode()


async def _send(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"application/json"), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
