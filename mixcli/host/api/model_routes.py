"""GET /v1/models, as OpenAI, vLLM, Mistral and Anthropic write it."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from mixcli.errors import BadRequest
from mixcli.host.protocol.messages import Fields
from mixcli.host.protocol.model_card import model_card, model_list
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
        return JSONResponse(model_list([_card(state)]))

    @app.get(MODELS + "/{model:path}")
    async def model(model: str) -> JSONResponse:
        """Describe a model by its id."""
        known = state.spec.name.label
        if model.lower() not in (known.lower(), known.lower().partition(":")[0]):  # the type may be left out
            raise UnknownModel(f"model {model!r:.200} not found; this server has {known}", param="model")
        return JSONResponse(_card(state))


def _card(state: HostState) -> Fields:
    """Return what is known of the model; its features once it is loaded."""
    card = model_card(state.spec.name.label, state.created, state.engine.placement.n_ctx)
    features = state.engine.features()
    return {
        **card,
        "capabilities": dict(features.capabilities),
        "reasoning_efforts": list(features.reasoning_efforts),
    }
