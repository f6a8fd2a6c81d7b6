"""GET /v1/models, as OpenAI, vLLM (max_model_len) and Mistral (capabilities) write it."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from mixcli.errors import BadRequest
from mixcli.host.api.events import JsonObject
from mixcli.host.protocol.paths import MODELS
from mixcli.host.state import HostState


class UnknownModel(BadRequest):
    """The id of a model that this host does not serve."""

    status = 404
    code = "model_not_found"


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the routes to the app."""

    @app.get(MODELS)
    async def models() -> JSONResponse:
        """List the model that is served."""
        return JSONResponse({"object": "list", "data": [_card(state)]})

    @app.get(MODELS + "/{model:path}")
    async def model(model: str) -> JSONResponse:
        """Describe a model by its id."""
        known = state.spec.name.label
        if model.lower() not in (known.lower(), known.lower().partition(":")[0]):  # the type may be left out
            raise UnknownModel(f"model {model!r:.200} not found; this server has {known}", param="model")
        return JSONResponse(_card(state))


def _card(state: HostState) -> JsonObject:
    """Return what is known of the model; its features once it is loaded."""
    n_ctx = state.engine.placement.n_ctx
    features = state.engine.features()
    return {
        "id": state.spec.name.label,
        "object": "model",
        "type": "base",  # mistralai's client reads no card without it
        "created": state.created,
        "owned_by": "local",
        "max_model_len": n_ctx,
        "max_context_length": n_ctx,
        "capabilities": dict(features.capabilities),
        "reasoning_efforts": list(features.reasoning_efforts),
    }
