"""The ASGI app of the port: what the gate and the limits let in, its models answer."""

import json
import sys
import traceback
from typing import Protocol

from mixcli.host.protocol.errors import is_anthropic
from mixcli.host.protocol.port_state import PortState
from mixcli.serve.chat_page import PageFile
from mixcli.serve.exchange import REQUEST_ID, Exchange, Receive, Scope, Send, in_origin_form, request_id
from mixcli.serve.gate import Accepted, Gate, Preflight, only
from mixcli.serve.limits import Limits
from mixcli.serve.refusal import Refusal

ANTHROPIC_ID = b"request-id"  # where Anthropic's clients look for it


class Models(Protocol):
    """What answers behind the port."""

    async def open(self) -> None:
        """Begin, in the event loop of the port."""

    async def close(self) -> None:
        """End, in the same event loop."""

    async def answer(self, exchange: Exchange, accepted: Accepted, body: bytes) -> None:
        """Answer a request that was let in; its body has been read."""

    def state(self) -> PortState:
        """Return what the port and its models do now, without asking a host."""


class Proxy:
    """Lets in what `gate` and `limits` allow, and has it answered by `models`."""

    def __init__(self, gate: Gate, limits: Limits, models: Models) -> None:
        self._gate, self._limits, self._models = gate, limits, models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope = in_origin_form(scope)
        origin = only(scope["headers"], b"origin")
        named = request_id(scope["headers"])
        own = [(REQUEST_ID, named), *self._gate.cors.headers(origin)]
        if is_anthropic(scope["path"]):
            own.append((ANTHROPIC_ID, named))
        exchange = Exchange(scope, receive, send, own)
        try:
            await self._exchange(exchange)
        except Exception:  # a bug; the client of a request that it did not concern must not see another's
            traceback.print_exc(file=sys.stderr)
            if exchange.has_begun:
                raise
            await exchange.refuse(
                Refusal(500, "server_error", "internal error of the server; see its output")
            )

    async def _exchange(self, exchange: Exchange) -> None:
        head = exchange.scope["method"], exchange.scope["path"], exchange.headers
        if self._gate.is_look(*head):
            shown = json.dumps(self._models.state().to_json()).encode()
            await exchange.whole(200, [(b"content-type", b"application/json")], shown)
            return
        verdict = self._gate.judge(*head)
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
            await exchange.turn_away(verdict)
            return
        if not verdict.route.loads_model:
            await self._models.answer(exchange, verdict, b"")
            return
        with self._limits.running(verdict.client) as held:
            body = await exchange.body(held)
            if isinstance(body, Refusal):
                await exchange.turn_away(body)
            elif body is not None:
                await self._models.answer(exchange, verdict, body)
