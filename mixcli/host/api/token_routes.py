"""Routes that count: the tokens of a text or a conversation, and which experts an answer used."""

import asyncio
from dataclasses import asdict
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mixcli.errors import BadRequest
from mixcli.host.api.chat_schema import MAX_MESSAGES, STRICT, ChatMessage
from mixcli.host.api.json_body import parsed, read
from mixcli.host.protocol.paths import EXPERTS, TOKENIZE
from mixcli.host.state import HostState


class TokenizeRequest(BaseModel):
    """POST /tokenize: a conversation, ready for an answer, or a text."""

    model_config = STRICT

    messages: list[ChatMessage] | None = Field(None, max_length=MAX_MESSAGES, fail_fast=True)
    prompt: str | None = None


class ExpertsRequest(BaseModel):
    """POST /mixcli/experts: a conversation that ends with an answer."""

    model_config = STRICT

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the routes to the app."""

    @app.post(TOKENIZE)
    async def tokenize(http: Request) -> JSONResponse:
        state.check_open()
        request = await read(http, partial(parsed, TokenizeRequest))
        messages = None if request.messages is None else [one.message() for one in request.messages]
        if messages is None and request.prompt is None:
            raise BadRequest("messages or prompt is required", param="messages")
        tokens = await asyncio.wrap_future(state.engine.tokenize(messages, request.prompt))
        n_ctx = state.engine.placement.n_ctx
        return JSONResponse({"count": len(tokens), "tokens": tokens, "max_model_len": n_ctx})

    @app.post(EXPERTS)
    async def experts(http: Request) -> JSONResponse:
        state.check_open()
        request = await read(http, partial(parsed, ExpertsRequest))
        routing = await asyncio.wrap_future(state.engine.experts([one.message() for one in request.messages]))
        return JSONResponse(asdict(routing))
