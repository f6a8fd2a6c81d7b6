"""POST /v1/embeddings: OpenAI's embeddings, of models that are made for them."""

import base64
from collections.abc import Mapping
from functools import partial
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from mixcli.engine.embedding import Vector
from mixcli.errors import BadRequest
from mixcli.host.api.beside import computed_beside
from mixcli.host.api.completion_schema import PromptField
from mixcli.host.api.field_rules import FieldRule, harmless, only
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.host.protocol.messages import TokenUsage
from mixcli.host.protocol.paths import EMBEDDINGS
from mixcli.host.state import HostState
from mixcli.prompts.raw_prompt import RawPrompt

RULES: Mapping[str, FieldRule] = {
    "model": harmless("OpenAI", "the server has one model"),
    "user": harmless("OpenAI", "identifies a user to OpenAI"),
    "truncate_prompt_tokens": only("vLLM", why="shorten the text"),
    "add_special_tokens": only("vLLM", True),
}


class EmbeddingRequest(WireModel):
    """POST /v1/embeddings: a text, token ids, or several of either."""

    input: PromptField
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Whole | None = Field(None, ge=1)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return RULES

    def prompts(self) -> list[RawPrompt]:
        """Return the inputs one by one."""
        given = self.input
        if isinstance(given, str):
            return [RawPrompt(given)]
        if isinstance(given[0], int):
            return [RawPrompt(tokens=tuple(given))]
        return [RawPrompt(one) if isinstance(one, str) else RawPrompt(tokens=tuple(one)) for one in given]

    def written(self, vector: Vector) -> list[float] | str:
        """Return an embedding as it goes into the answer: numbers, or the base64 of little-endian floats."""
        if self.encoding_format == "float":
            return [float(x) for x in vector]
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the route to the app."""

    @app.post(EMBEDDINGS, openapi_extra=body_of(EmbeddingRequest))
    async def embed(http: Request) -> JSONResponse:
        """Return the embeddings of texts."""
        state.check_open()
        request = await read(http, partial(parsed, EmbeddingRequest))
        prompts = request.prompts()
        vectors, n_tokens = await computed_beside(
            state, http, lambda model, is_over: model.embeddings(prompts, is_over)
        )
        if request.dimensions not in (None, len(vectors[0])):
            raise BadRequest(
                f"dimensions is {request.dimensions}; this model supports only {len(vectors[0])}",
                param="dimensions",
            )
        data = [
            {"object": "embedding", "index": i, "embedding": request.written(one)}
            for i, one in enumerate(vectors)
        ]
        usage = TokenUsage(n_tokens, 0, n_tokens).to_json()
        return JSONResponse({"object": "list", "data": data, "model": state.spec.name.label, "usage": usage})
