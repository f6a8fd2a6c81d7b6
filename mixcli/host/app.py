"""OpenAI-compatible HTTP over the engine of one loaded model."""

import asyncio
import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from mixcli.engine.sequence import Output
from mixcli.errors import BadRequest, MixcliError
from mixcli.host.call import Call
from mixcli.host.loop import EngineLoop
from mixcli.host.protocol import ATTACH, BUSY, FAILED, error_body
from mixcli.host.replies import Replies
from mixcli.host.residency import Residency
from mixcli.host.schema import Answerer, ChatRequest, ExpertsRequest, TokenizeRequest
from mixcli.host.spec import HostSpec

GONE = 499  # the asker left; nobody reads it


class State:
    """What the handlers share: the engine, who is here, and a signal for every change of the load."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.residency = Residency()
        self.replies = Replies()
        self.closing = asyncio.Event()
        self.created = int(time.time())
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Condition()
        self.engine = EngineLoop(spec, self._on_state)

    def _on_state(self) -> None:
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self.wake()))

    async def wake(self) -> None:
        """Let everybody who follows the state look again."""
        async with self._changed:
            self._changed.notify_all()

    async def change(self) -> None:
        """Wait for the next change, half a second at most."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.5)

    async def wait_until_unwanted(self) -> None:
        """Return when the model may go: nobody came back in time, or the load failed and everybody has heard why."""
        unwanted = asyncio.create_task(self.residency.wait_until_unwanted())
        while not unwanted.done():
            if self.engine.status == FAILED and self.residency.n_guests and not self.residency.busy:
                unwanted.cancel()
                return
            await asyncio.wait({unwanted}, timeout=0.2)

    async def close(self) -> None:
        """Ask those who only follow the state to leave."""
        self.closing.set()
        await self.wake()

    def snapshot(self) -> dict[str, Any]:
        """Give the state as /health and the attach stream show it; `expires_in` is seconds, null for never."""
        expires_in = self.residency.expires_in
        return {
            "status": self.engine.status,
            "progress": self.engine.progress,
            "notes": self.engine.notes,
            "model": self.spec.name.label,
            "path": os.fspath(self.spec.name.path),
            "size": self.spec.name.path.stat().st_size if self.spec.name.path.exists() else None,
            "n_ctx": self.engine.placement.n_ctx,
            "pid": os.getpid(),
            **self.engine.counts(),
            "busy": self.residency.busy,
            "expires_in": None if expires_in == math.inf else round(expires_in, 1),
        }


def create_app(state: State) -> FastAPI:
    """Build the app; nothing is loaded by it."""
    app = FastAPI(title="mixcli", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        detail = {
            "message": f"{field}: {first['msg']}",
            "type": "invalid_request_error",
            "param": field,
            "exit_code": 2,
        }
        return JSONResponse({"error": detail}, 400)

    @app.exception_handler(MixcliError)
    async def failed(_request: Request, error: MixcliError) -> JSONResponse:
        status, body = error_body(error)
        return JSONResponse(body, status, headers={"Retry-After": "2"} if status == BUSY else None)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return state.snapshot()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {
            "id": state.spec.name.label,
            "object": "model",
            "created": state.created,
            "owned_by": "local",
        }
        return {"object": "list", "data": [model]}

    @app.get(ATTACH)
    async def attach(keep_alive: float) -> StreamingResponse:
        return _events(_states(state, keep_alive))

    @app.post("/v1/chat/completions")
    async def chat(request: ChatRequest, http: Request) -> Any:
        key = None if request.stream else http.headers.get("idempotency-key")
        if (known := state.replies.get(key)) is not None:
            return known
        call = Call(
            f"chatcmpl-{uuid.uuid4().hex}",
            request.question(),
            asyncio.get_running_loop(),
            as_whole=not request.stream,
        )
        outputs = _outputs(state, call, http, progress=request.return_progress)
        # an error before the first token still has a status code of its own
        first = await anext(outputs, None)
        if first is None or first.finish_reason == "abort":
            await outputs.aclose()
            return Response(status_code=GONE)
        answerer = Answerer(call.id, state.spec.name.label, request, state.engine.pieces, call.n_dropped)
        if request.stream:
            return _events(_stream(answerer, call, first, outputs))
        await outputs.aclose()  # the first was the last
        whole = answerer.whole(call.outputs, call.token_ids)
        state.replies.keep(key, whole)
        return whole

    @app.post("/tokenize")
    async def tokenize(request: TokenizeRequest) -> dict[str, Any]:
        messages = None if request.messages is None else [one.message() for one in request.messages]
        if messages is None and request.prompt is None:
            raise BadRequest("say messages or prompt", param="messages")
        tokens = await asyncio.wrap_future(state.engine.tokenize(messages, request.prompt))
        return {"count": len(tokens), "tokens": tokens, "max_model_len": state.engine.placement.n_ctx}

    @app.post("/mixcli/experts")
    async def experts(request: ExpertsRequest) -> dict[str, Any]:
        return await asyncio.wrap_future(state.engine.experts([one.message() for one in request.messages]))

    return app


async def _states(state: State, keep_alive: float) -> AsyncGenerator[dict[str, Any], None]:
    with state.residency.guest(keep_alive):
        last = None
        while not state.closing.is_set():
            snapshot = state.snapshot()
            shown = {key: snapshot[key] for key in ("status", "progress", "notes", "pid")}
            if shown["status"] == FAILED:
                assert state.engine.error is not None
                yield {**shown, **error_body(state.engine.error)[1]}
                return
            if shown != last:
                yield shown
                last = shown
            await state.change()


async def _outputs(
    state: State, call: Call, http: Request, *, progress: bool
) -> AsyncGenerator[Output, None]:
    """Yield the outputs of a call; when the asker leaves, the call is dropped and the engine goes on with others.

    The last output comes then too: "abort", or the answer's own end, where that was faster; so no finished answer is lost.
    """
    with state.residency.guest():
        state.engine.submit(call)
        left = False
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
                    continue
                if isinstance(item, BaseException):
                    raise item
                if item.progress is None or progress:
                    yield item
                if item.is_last:
                    return
        finally:
            state.engine.abort(call)


async def _stream(
    answerer: Answerer, call: Call, first: Output, rest: AsyncGenerator[Output, None]
) -> AsyncGenerator[dict[str, Any], None]:
    yield answerer.opening()
    last = first
    try:
        async with contextlib.aclosing(_chain(first, rest)) as outputs:
            async for last in outputs:
                if last.progress is not None:
                    yield answerer.progress(last)
                elif last.text or last.logprobs:
                    yield answerer.delta(last)
    except Exception as error:  # the status line is gone: the error travels in the stream
        yield error_body(error)[1]
        return
    yield answerer.closing(last, call.token_ids)
    if answerer.request.stream_options.include_usage:
        yield answerer.accounts(last)


async def _chain(first: Output, rest: AsyncGenerator[Output, None]) -> AsyncGenerator[Output, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for output in rest:
            yield output


def _events(values: AsyncGenerator[dict[str, Any], None]) -> StreamingResponse:
    async def lines() -> AsyncGenerator[str, None]:
        async with contextlib.aclosing(values):
            async for value in values:
                yield f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
