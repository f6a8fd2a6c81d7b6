"""The OpenAI-compatible HTTP routes of a host."""

import asyncio
import contextlib
import json
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from mixcli.engine.sequence import Output
from mixcli.errors import BadRequest, MixcliError
from mixcli.host.body import parsed
from mixcli.host.call import Call, ChatQuestion
from mixcli.host.idempotency import (
    CLIENT,
    HEADER,
    REPLAYED,
    IdempotencyCache,
    Name,
    Recording,
    Reply,
    digest,
    name_of,
)
from mixcli.host.intake import Intake
from mixcli.host.openai_response import JsonObject, ResponseWriter
from mixcli.host.openai_schema import ChatRequest, ExpertsRequest, TokenizeRequest
from mixcli.host.protocol.errors import BUSY, ErrorBody, error_body
from mixcli.host.protocol.paths import ATTACH, EXPERTS, FAILED, LOADING
from mixcli.host.state import HostState

GONE = 499  # the client disconnected, so no one reads it
LARGE = 1 << 16  # bytes of a body that are worth a thread
EVENTS, DONE = "text/event-stream", b"data: [DONE]\n\n"
NO_STORE = {"Cache-Control": "no-store"}

T = TypeVar("T")
BEAT = 2.0  # seconds of silence after which a stream shows that this process is alive
ALIVE = None  # what stands for it in a stream: a comment, which every client of server-sent events skips


def create_app(state: HostState) -> FastAPI:
    """Build the app; nothing is loaded by it."""
    app = FastAPI(title="mixcli", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Intake)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(MixcliError, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    _add_state_routes(app, state)
    _add_chat_routes(app, state)
    return app


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    body = ErrorBody(f"{field}: {first['msg']}", "invalid_request_error", field, exit_code=2)
    return JSONResponse(body.to_json(), 400)


async def _failed(_request: Request, error: Exception) -> JSONResponse:
    status, body = error_body(error)
    headers = {"Retry-After": "2"} if status == BUSY else None
    return JSONResponse(body.to_json(), status, headers=headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=GONE)


def _add_state_routes(app: FastAPI, state: HostState) -> None:
    """Add what needs no model: the state of the host, and its followers."""

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse(state.health().to_json())

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        model = {
            "id": state.spec.name.label,
            "object": "model",
            "created": state.created,
            "owned_by": "local",
        }
        return JSONResponse({"object": "list", "data": [model]})

    @app.get(ATTACH)
    async def attach(keep_alive: float) -> StreamingResponse:
        state.check_open()
        if math.isnan(keep_alive):
            raise BadRequest("keep_alive is not a number of seconds", param="keep_alive")
        return _events(_statuses(state, keep_alive))


def _add_chat_routes(app: FastAPI, state: HostState) -> None:
    """Add what the model is needed for: answers, token counts and the use of experts."""

    @app.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        state.check_open()
        name = name_of(http.headers.get(CLIENT, ""), http.headers.getlist(HEADER))
        request, question, body = await _read(http, _question)
        if name is None:
            return await _answer(state, request, question, body, http, _forget)
        with state.keep_alive.client():
            kept = await _claimed(state, name, body, http)
        if isinstance(kept, Response):
            return kept
        claim = _Claim(state.replies, name)
        try:
            return await _answer(state, request, question, body, http, claim.finish)
        except BaseException:
            claim.finish(None)
            raise

    @app.post("/tokenize")
    async def tokenize(http: Request) -> JSONResponse:
        state.check_open()
        request = await _read(http, partial(parsed, TokenizeRequest))
        messages = None if request.messages is None else [one.message() for one in request.messages]
        if messages is None and request.prompt is None:
            raise BadRequest("messages or prompt is required", param="messages")
        tokens = await asyncio.wrap_future(state.engine.tokenize(messages, request.prompt))
        n_ctx = state.engine.placement.n_ctx
        return JSONResponse({"count": len(tokens), "tokens": tokens, "max_model_len": n_ctx})

    @app.post(EXPERTS)
    async def experts(http: Request) -> JSONResponse:
        state.check_open()
        request = await _read(http, partial(parsed, ExpertsRequest))
        routing = await asyncio.wrap_future(state.engine.experts([one.message() for one in request.messages]))
        return JSONResponse(asdict(routing))


async def _read(http: Request, read: Callable[[bytes], T]) -> T:
    """Read and check a body; a large one in a thread, so that the streams of others go on."""
    raw = await http.body()
    return await asyncio.to_thread(read, raw) if len(raw) > LARGE else read(raw)


def _question(raw: bytes) -> tuple[ChatRequest, ChatQuestion, bytes]:
    """Check a whole chat request; with the digest that binds its Idempotency-Key to it."""
    request = parsed(ChatRequest, raw)
    return request, request.question(), digest(request.model_dump(by_alias=True))


class _Claim:
    """The duty to say what became of a name; the first word counts."""

    def __init__(self, replies: IdempotencyCache, name: Name) -> None:
        self._replies, self._name = replies, name
        self._open = True

    def finish(self, reply: Reply | None) -> None:
        if self._open:
            self._open = False
            self._replies.finish(self._name, reply)


def _forget(_reply: Reply | None) -> None:
    """Keep nothing of an answer without a name."""


async def _claimed(state: HostState, name: Name, body: bytes, http: Request) -> Response | None:
    """Return the kept answer of a name, waiting while it is computed for another request; None where it is this one's to compute."""
    claim = asyncio.ensure_future(state.replies.claim(name, body))
    try:
        while not claim.done():
            await asyncio.wait({claim}, timeout=0.2)
            if not claim.done() and (state.closing.is_set() or await http.is_disconnected()):
                return Response(status_code=GONE)
        kept = claim.result()
    finally:
        if not claim.done():
            claim.cancel()
    if kept is None:
        return None
    return Response(kept.body, media_type=kept.media_type, headers={REPLAYED: "true", **NO_STORE})


async def _answer(
    state: HostState,
    request: ChatRequest,
    question: ChatQuestion,
    body: bytes,
    http: Request,
    finish: Callable[[Reply | None], None],
) -> Response:
    """Compute an answer; `finish` gets what went out once it is whole, or None."""
    call = Call(
        f"chatcmpl-{uuid.uuid4().hex}",
        question,
        asyncio.get_running_loop(),
        as_whole=not request.stream,
    )
    outputs = _outputs(state, call, http, progress=request.return_progress)
    # an error before the first token still has a status code of its own
    first = None
    async for first in outputs:
        if first is not ALIVE:
            break
    if first is None or first.finish_reason == "abort":
        await outputs.aclose()
        finish(None)
        return Response(status_code=GONE)
    name = f"chatcmpl-{body.hex()[:32]}" if request.deterministic else call.id
    writer = ResponseWriter(name, state.spec.name.label, request, state.engine.pieces, call.n_dropped)
    if request.stream:
        return _events(_stream(writer, call, first, outputs), finish)
    await outputs.aclose()  # the first was the last
    whole = json.dumps(writer.whole(call.outputs, call.token_ids), ensure_ascii=False, allow_nan=False)
    reply = Reply(whole.encode(), "application/json")
    finish(reply)
    return Response(reply.body, media_type=reply.media_type)


async def _statuses(state: HostState, keep_alive: float) -> AsyncGenerator[JsonObject | None, None]:
    with state.keep_alive.client(keep_alive):
        last, spoke = None, time.monotonic()
        while not state.closing.is_set():
            now = state.load_status()
            if now.status == FAILED:
                yield now.to_json()
                return
            if now != last:
                yield now.to_json()
                last, spoke = now, time.monotonic()
            elif now.status == LOADING and time.monotonic() - spoke >= BEAT:
                yield ALIVE  # the client reads no further, it only holds the stream open
                spoke = time.monotonic()
            await state.change()


async def _outputs(
    state: HostState, call: Call, http: Request, *, progress: bool
) -> AsyncGenerator[Output | None, None]:
    """Yield the outputs of a call, and ALIVE in between where nothing comes for BEAT seconds; when the client disconnects, the call is aborted.

    The last output comes then too: "abort", or the answer's own end, where that was faster; so no finished answer is lost.
    """
    with state.keep_alive.client():
        state.engine.submit(call)
        left, spoke = False, time.monotonic()
        try:
            while True:
                try:
                    async with asyncio.timeout(0.2):
                        item = await call.items.get()
                except TimeoutError:
                    if state.engine.error is not None:
                        raise state.engine.error from None
                    if left and state.closing.is_set():
                        return
                    if not left and await http.is_disconnected():
                        left = True
                        state.engine.abort(call)
                    if not call.as_whole and time.monotonic() - spoke >= BEAT:
                        yield ALIVE
                        spoke = time.monotonic()
                    continue
                if isinstance(item, BaseException):
                    raise item
                if item.progress is None or progress:
                    yield item
                    spoke = time.monotonic()
                if item.is_last:
                    return
        finally:
            state.engine.abort(call)


async def _stream(
    writer: ResponseWriter, call: Call, first: Output, rest: AsyncGenerator[Output | None, None]
) -> AsyncGenerator[JsonObject | None, None]:
    yield writer.opening()
    last = first
    try:
        async with contextlib.aclosing(_chain(first, rest)) as outputs:
            async for output in outputs:
                if output is ALIVE:
                    yield ALIVE
                    continue
                last = output
                if last.progress is not None:
                    yield writer.progress(last)
                elif last.text or last.logprobs:
                    yield writer.delta(last)
    except Exception as error:  # the status line is gone: the error travels in the stream
        yield error_body(error)[1].to_json()
        return
    yield writer.closing(last, call.token_ids)
    if writer.request.stream_options.include_usage:
        yield writer.accounts(last)


async def _chain(
    first: Output, rest: AsyncGenerator[Output | None, None]
) -> AsyncGenerator[Output | None, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for output in rest:
            yield output


def _events(
    values: AsyncGenerator[JsonObject | None, None], finish: Callable[[Reply | None], None] = _forget
) -> StreamingResponse:
    """Stream values as server-sent events; `finish` gets all of it once an answer has come to its end, or None."""

    async def lines() -> AsyncGenerator[bytes, None]:
        recording = Recording()
        whole = False
        try:
            async with contextlib.aclosing(values):
                async for value in values:
                    if value is ALIVE:
                        yield b": alive\n\n"
                        continue
                    whole = "error" not in value
                    piece = f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
                    if finish is not _forget:
                        recording.add(piece)
                    yield piece
            recording.add(DONE)
            finish(recording.reply(EVENTS) if whole else None)
            yield DONE
        finally:
            finish(None)

    return StreamingResponse(lines(), media_type=EVENTS, headers=NO_STORE)
