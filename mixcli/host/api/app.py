"""The HTTP app of a host: the routes of all APIs."""

from fastapi import FastAPI

from mixcli.host.api import (
    anthropic_routes,
    chat_routes,
    completion_routes,
    docs_routes,
    embedding_routes,
    metrics_routes,
    model_routes,
    responses_routes,
    state_routes,
    token_routes,
)
from mixcli.host.api.error_answers import RequestIds, add_error_answers
from mixcli.host.intake import Intake
from mixcli.host.state import HostState

APIS = (
    chat_routes,
    completion_routes,
    embedding_routes,
    anthropic_routes,
    model_routes,
    token_routes,
    responses_routes,
    state_routes,
    metrics_routes,
    docs_routes,
)


def create_app(state: HostState) -> FastAPI:
    """Build the app; nothing is loaded by it."""
    app = FastAPI(title="mixcli", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Intake)
    app.add_middleware(RequestIds)
    add_error_answers(app)
    for api in APIS:
        api.add_routes(app, state)
    return app
