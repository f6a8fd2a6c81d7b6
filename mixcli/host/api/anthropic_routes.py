"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages, as a translation of chat completions."""

import asyncio
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mixcli.host.api.answering import respond
from mixcli.host.api.anthropic_response import MessagesWriter
from mixcli.host.api.anthropic_schema import CountRequest, MessagesRequest
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.call import Call, ChatQuestion
from mixcli.host.idempotency import CLIENT, HEADER, digest, name_of
from mixcli.host.protocol.paths import COUNT_TOKENS, MESSAGES
from mixcli.host.state import HostState


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the routes to the app."""

    @app.post(MESSAGES, openapi_extra=body_of(MessagesRequest))
    async def messages(http: Request) -> Response:
        """Answer a conversation, as Anthropic's API does."""
        return await _messages(state, http)

    @app.post(COUNT_TOKENS, openapi_extra=body_of(CountRequest))
    async def count_tokens(http: Request) -> Response:
        """Count the tokens of a conversation, as Anthropic's API does."""
        return await _count(state, http)


async def _messages(state: HostState, http: Request) -> Response:
    state.check_open()
    name = name_of(http.headers.get(CLIENT, ""), http.headers.getlist(HEADER))
    request, question, body = await read(http, _question)
    call_id = f"msg_{uuid.uuid4().hex}"
    call = Call(call_id, question, asyncio.get_running_loop(), as_whole=not request.stream)
    writer = MessagesWriter(call_id, state.spec.name.label)
    with request.named_as_sent():
        return await respond(state, http, [call], writer, stream=request.stream, name=name, body=body)


async def _count(state: HostState, http: Request) -> Response:
    state.check_open()
    request, asked = await read(http, _counted)
    counted = state.engine.prepare(
        lambda model: model.tokenize(asked.messages, asked.prompt_options), asked.n_characters
    )
    with request.named_as_sent():
        tokens = await asyncio.wrap_future(counted)
    return JSONResponse({"input_tokens": len(tokens)})


def _question(raw: bytes) -> tuple[MessagesRequest, ChatQuestion, bytes]:
    """Check a whole request; with the digest that binds its Idempotency-Key to it."""
    request = parsed(MessagesRequest, raw)
    return request, request.question(), digest({MESSAGES: request.model_dump(by_alias=True)})


def _counted(raw: bytes) -> tuple[CountRequest, ChatQuestion]:
    request = parsed(CountRequest, raw)
    return request, request.question()
