"""POST /v1/chat/completions: OpenAI's chat completions."""

import asyncio
import time
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import Response

from mixcli.host.api.answering import respond
from mixcli.host.api.chat_response import ChatResponseWriter
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.call import Call, ChatQuestion
from mixcli.host.idempotency import CLIENT, HEADER, digest, name_of
from mixcli.host.protocol.paths import CHAT
from mixcli.host.state import HostState


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the route to the app."""

    @app.post(CHAT, openapi_extra=body_of(ChatRequest))
    async def chat(http: Request) -> Response:
        """Answer a conversation."""
        state.check_open()
        name = name_of(http.headers.get(CLIENT, ""), http.headers.getlist(HEADER))
        request, questions, body = await read(http, _questions)
        id_ = f"chatcmpl-{body.hex()[:32] if request.deterministic else uuid.uuid4().hex}"
        loop = asyncio.get_running_loop()
        calls = [
            Call(f"{uuid.uuid4().hex}-{i}", question, loop, as_whole=not request.stream, index=i)
            for i, question in enumerate(questions)
        ]
        created = 0 if request.deterministic else int(time.time())
        writer = ChatResponseWriter(id_, state.spec.name.label, created, request, state.engine.pieces)
        with request.named_as_sent():
            return await respond(state, http, calls, writer, stream=request.stream, name=name, body=body)


def _questions(raw: bytes) -> tuple[ChatRequest, list[ChatQuestion], bytes]:
    """Check a whole chat request; with the digest that binds its Idempotency-Key to it."""
    request = parsed(ChatRequest, raw)
    return request, request.questions(), digest(request.model_dump(by_alias=True))
