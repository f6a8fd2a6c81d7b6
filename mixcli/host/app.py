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
from fastapi.responses import JSONResponse, StreamingResponse

from mixcli.engine.sequence import Output
from mixcli.errors import MixcliError
from mixcli.host.loop import Call, EngineLoop
from mixcli.host.protocol import ATTACH, FAILED, error_body
from mixcli.host.residency import Residency
from mixcli.host.schema import ChatRequest, chunk, completion, usage_chunk
from mixcli.host.spec import HostSpec


class State:
    """What the handlers share: the engine, who is here, and a signal for every change of the load."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.residency = Residency()
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
        return JSONResponse(body, status)

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
        call = Call(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            messages=tuple(message.message() for message in request.messages),
            sampling=request.sampling(),
            loop=asyncio.get_running_loop(),
        )
        outputs = _outputs(state, call, http)
        first = await anext(outputs)  # an error before the first token still has a status code of its own
        if request.stream:
            return _events(
                _stream(call.id, state.spec.name.label, first, outputs, request.stream_options.include_usage)
            )
        return await _whole(call.id, state.spec.name.label, first, outputs)

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


async def _outputs(state: State, call: Call, http: Request) -> AsyncGenerator[Output, None]:
    """Yield the outputs of a call; when the asker leaves, the call is dropped and the engine goes on with others."""
    with state.residency.guest():
        state.engine.submit(call)
        try:
            while True:
                try:
                    item = await asyncio.wait_for(call.items.get(), 0.2)
                except TimeoutError:
                    if state.engine.error is not None:
                        raise state.engine.error from None
                    if await http.is_disconnected():
                        return
                    continue
                if isinstance(item, BaseException):
                    raise item
                yield item
                if item.finish_reason is not None:
                    return
        finally:
            state.engine.abort(call)


async def _stream(
    answer_id: str, model: str, first: Output, rest: AsyncGenerator[Output, None], include_usage: bool
) -> AsyncGenerator[dict[str, Any], None]:
    yield chunk(answer_id, model, {"role": "assistant", "content": ""})
    last = first
    try:
        async with contextlib.aclosing(_chain(first, rest)) as outputs:
            async for last in outputs:
                if last.text:
                    yield chunk(answer_id, model, {"content": last.text})
    except Exception as error:  # the status line is gone: the error travels in the stream
        yield error_body(error)[1]
        return
    yield chunk(answer_id, model, {}, last.finish_reason)
    if include_usage:
        yield usage_chunk(answer_id, model, last)


async def _whole(
    answer_id: str, model: str, first: Output, rest: AsyncGenerator[Output, None]
) -> dict[str, Any]:
    texts, last = [], first
    async for last in _chain(first, rest):
        texts.append(last.text)
    return completion(answer_id, model, "".join(texts), last)


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
