"""The HTTP app of a host: the routes of all APIs, and what errors look like."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from mixcli.errors import MixcliError
from mixcli.host.api import (
    chat_routes,
    completion_routes,
    docs_routes,
    embedding_routes,
    metrics_routes,
    model_routes,
    state_routes,
    token_routes,
)
from mixcli.host.api.answering import GONE
from mixcli.host.intake import Intake
from mixcli.host.protocol.errors import BUSY, ErrorBody, error_body
from mixcli.host.state import HostState

APIS = (
    chat_routes,
    completion_routes,
    embedding_routes,
    model_routes,
    token_routes,
    state_routes,
    metrics_routes,
    docs_routes,
)


def create_app(state: HostState) -> FastAPI:
    """Build the app; nothing is loaded by it."""
    app = FastAPI(title="mixcli", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Intake)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(MixcliError, _failed)
    app.add_exception_handler(ClientDisconnect, _gone)
    for api in APIS:
        api.add_routes(app, state)
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
