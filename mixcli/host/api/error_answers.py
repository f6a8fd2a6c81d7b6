"""Errors of all routes in OpenAI's form, or Anthropic's, whatever raised them, and an id on every answer."""

import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mixcli.errors import MixcliError, UsageError
from mixcli.host.api.answering import GONE
from mixcli.host.protocol.errors import BUSY, ErrorBody, error_body
from mixcli.system.python_words import validation_text

REQUEST_ID = b"x-request-id"
MAX_ID = 128  # characters of an id that a client chose

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class RequestIds:
    """ASGI middleware that gives each answer an X-Request-Id: the one of the request, or a new one."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Run the app; its answer gets the id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = [value for name, value in scope["headers"] if name == REQUEST_ID]
        is_usable = len(sent) == 1 and 0 < len(sent[0]) <= MAX_ID and sent[0].isascii()
        request_id = sent[0] if is_usable else b"req_" + uuid.uuid4().hex.encode()

        scope["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
            await send(message)

        await self._app(scope, receive, named)


def add_error_answers(app: FastAPI) -> None:
    """Answer all errors in the form of the API that was asked."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(MixcliError, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    body = ErrorBody(f"{field}: {validation_text(first)}", "invalid_request_error", field, exit_code=2)
    return JSONResponse(body.to_json_at(request.url.path, 400), 400)


async def _not_served(request: Request, error: Exception) -> JSONResponse:
    """Answer what no route takes: an unknown path, or a known one with another method."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "another method")
        message, code = f"{request.method} not allowed for {path}; use {allowed}", "method_not_supported"
    elif error.status_code == 404:
        message, code = f"{request.method} {path} not found; check the path", "unknown_url"
    else:
        message, code = str(error.detail), None
    body = ErrorBody(message, "invalid_request_error", None, code, UsageError.exit_code)
    found = body.to_json_at(request.url.path, error.status_code)
    return JSONResponse(found, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    status, body = error_body(error)
    headers = {"Retry-After": "2"} if status == BUSY else None
    return JSONResponse(body.to_json_at(request.url.path, status), status, headers=headers)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """Answer for a bug; this is called outside of all middleware, and the traceback goes to the log."""
    response = await _failed(request, error)
    response.raw_headers.append((REQUEST_ID, request.scope["request_id"]))
    return response


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=GONE)
