"""Send an accepted request to a host, and its answer back to the client as it comes."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from urllib.parse import quote

from mixcli.host.protocol.paths import HEALTH, READY
from mixcli.serve.exchange import Exchange
from mixcli.serve.gate import Accepted
from mixcli.serve.host_link import HostGone, HostLink
from mixcli.serve.refusal import UNRESPONSIVE, error_event, torn

SHOWN_TO_ALL = ("status", "progress")  # of /health
SECRET = {"path", "pid"}  # of /health: not shown to clients
KEPT = (  # headers of an answer that go back
    b"content-type",
    b"retry-after",
    b"cache-control",
    b"idempotent-replayed",
    b"allow",
)
PASSED = (b"content-type", b"idempotency-key")  # headers of a request that are forwarded
CLIENT = b"x-mixcli-client"  # tells the host whose Idempotency-Key it is; a client cannot send it itself


Work = Coroutine[None, None, None]


class NotBegun(Exception):
    """The host ended before its answer began."""


async def raced(work: Work, *ends: Work) -> int | None:
    """Do some work unless one of `ends` comes before; return which one came, None where the work was done. Raises what the work raises."""
    others = [asyncio.create_task(end) for end in ends]
    came: list[asyncio.Task[None]] = []
    is_over = False

    def stop(end: asyncio.Task[None]) -> None:
        if not (is_over or came or end.cancelled()):
            came.append(end)
            limit.reschedule(0)

    try:
        async with asyncio.timeout(None) as limit:
            for end in others:
                end.add_done_callback(stop)
            await work
    except TimeoutError:
        if not came:
            raise
    finally:
        is_over = True  # one that ends in this very moment calls anyway
        for end in others:
            end.cancel()
    return others.index(came[0]) if came else None


async def unless_it_hangs(exchange: Exchange, work: Work, hangs: Work) -> None:
    """Do the work of an answer, unless its host hangs: a stream that has begun then ends with an error event, any other answer is incomplete."""
    if await raced(work, hangs) is None:
        return
    if exchange.has_comments or not exchange.has_begun:
        await exchange.refuse(UNRESPONSIVE)
    else:
        await exchange.break_off(UNRESPONSIVE, exchange.scope["path"])


async def forward(
    client: HostLink,
    exchange: Exchange,
    accepted: Accepted,
    body: bytes,
    cause: Callable[[], str] = lambda: "",
) -> None:
    """Let a host answer; NotBegun where it ends before. `cause` returns why it ended, where that is known."""
    headers = [(name, value) for name, value in exchange.headers if name.lower() in PASSED]
    headers += [(CLIENT, b"serve-" + accepted.client.hex().encode()), exchange.own_headers[0]]
    target = quote(accepted.path, safe="/", errors="surrogatepass")
    has_begun = False
    try:
        response = await client.send(accepted.route.method, target, headers, body)
        async with contextlib.aclosing(response):
            has_begun = True
            kept = [(name, value) for name, value in response.headers if name in KEPT]
            if accepted.route.path == HEALTH:
                status, shown = _public_health(await response.aread(), is_brief=accepted.is_brief)
                await exchange.whole(status, kept, shown)
                return
            if exchange.has_comments and response.status != 200:
                await exchange.piece(error_event(accepted.path, await response.aread()), more=False)
                return
            if not exchange.has_comments:
                await exchange.start(response.status, kept)
            async for piece in response.pieces():
                await exchange.piece(piece, more=True)
            await exchange.piece(b"", more=False)
    except HostGone as error:
        if not has_begun:
            raise NotBegun from error
        await exchange.break_off(torn(cause()), accepted.path)


def _public_health(raw: bytes, *, is_brief: bool) -> tuple[int, bytes]:
    """Return the status and what a client may know of the host's state."""
    state = json.loads(raw)
    shown = {
        name: value
        for name, value in state.items()
        if (name in SHOWN_TO_ALL if is_brief else name not in SECRET)
    }
    return 200 if state.get("status") == READY else 503, json.dumps(shown).encode()
