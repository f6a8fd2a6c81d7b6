"""POST /v1/responses: OpenAI's Responses without state, as a translation of chat completions."""

import asyncio
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import Response

from mixcli.host.api.answering import respond
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.api.responses_response import ResponsesWriter
from mixcli.host.api.responses_schema import ResponsesRequest
from mixcli.host.call import Call, ChatQuestion
from mixcli.host.idempotency import CLIENT, HEADER, digest, name_of
from mixcli.host.protocol.paths import RESPONSES
from mixcli.host.state import HostState


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the route to the app."""

    @app.post(RESPONSES, openapi_extra=body_of(ResponsesRequest))
    async def responses(http: Request) -> Response:
        """Answer a conversation, as OpenAI's Responses do."""
        state.check_open()
        name = name_of(http.headers.get(CLIENT, ""), http.headers.getlist(HEADER))
        request, question, body = await read(http, _question)
        call_id = f"resp_{uuid.uuid4().hex}"
        call = Call(call_id, question, asyncio.get_running_loop(), as_whole=not request.stream)
        writer = ResponsesWriter(call_id, state.spec.name.label, request, state.engine.pieces)
        with request.named_as_sent():
            return await respond(state, http, [call], writer, stream=request.stream, name=name, body=body)


def _question(raw: bytes) -> tuple[ResponsesRequest, ChatQuestion, bytes]:
    """Check a whole request; with the digest that binds its Idempotency-Key to it."""
    request = parsed(ResponsesRequest, raw)
    return request, request.question(), digest({RESPONSES: request.model_dump(by_alias=True)})
