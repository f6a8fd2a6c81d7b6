"""Routes that count and show tokens, as llama-server and vLLM have them, and which experts an answer used."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from mixcli.errors import BadRequest
from mixcli.host.api.beside import computed_beside
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.field_rules import FieldRule, alias, harmless, only
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.message_schema import MAX_MESSAGES, ChatMessage, conversation
from mixcli.host.api.openapi import body_of
from mixcli.host.api.tool_schema import MAX_TOOLS, ToolDefinition, tool_use
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.host.protocol.paths import APPLY_TEMPLATE, DETOKENIZE, EXPERTS, TOKENIZE
from mixcli.host.state import HostState
from mixcli.prompts.messages import Message, PromptOptions
from mixcli.prompts.raw_prompt import RawPrompt

MAX_TOKENS = 1 << 20

MODEL_RULES: Mapping[str, FieldRule] = {"model": harmless("vLLM", "the server has one model")}
TOKENIZE_RULES: Mapping[str, FieldRule] = {
    **MODEL_RULES,
    "add_special": alias("llama-server", "add_special_tokens"),
    "add_generation_prompt": only("vLLM", True),
    "continue_final_message": harmless(
        "vLLM", "a last message with the role assistant is continued without it"
    ),
    "chat_template_kwargs": only("vLLM", {}),
}
Tools = Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS, fail_fast=True)]
Messages = Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES, fail_fast=True)]


class TokenizeRequest(WireModel):
    """POST /tokenize: a conversation, ready for an answer, or a text, as vLLM (prompt) or llama-server (content) names it.

    To a prompt special tokens are added as vLLM does it, to a content they are not, as llama-server has it.
    """

    messages: Messages | None = None
    prompt: str | None = None
    content: str | None = None
    tools: Tools = Field(default_factory=list)
    add_special_tokens: bool | None = None
    parse_special: bool = False
    return_token_strs: bool = False
    with_pieces: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return TOKENIZE_RULES

    def asked(self) -> list[Message] | RawPrompt:
        """Return what is to be split; BadRequest where it is nothing, or several things."""
        given = [one for one in (self.messages, self.prompt, self.content) if one is not None]
        if len(given) != 1:
            raise BadRequest("exactly one of messages, prompt and content is required", param="prompt")
        if self.tools and self.messages is None:
            raise BadRequest("tools is only allowed with messages", param="tools")
        if isinstance(text := given[0], str):
            add = self.add_special_tokens
            return RawPrompt(
                text, parse_special=self.parse_special, add_bos=self.content is None if add is None else add
            )
        assert self.messages is not None
        return list(conversation(self.messages))


class DetokenizeRequest(WireModel):
    """POST /detokenize: token ids."""

    tokens: list[Whole] = Field(max_length=MAX_TOKENS, fail_fast=True)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return MODEL_RULES


class ExpertsRequest(WireModel):
    """POST /mixcli/experts: a conversation that ends with an answer."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the routes to the app."""

    @app.post(TOKENIZE, openapi_extra=body_of(TokenizeRequest))
    async def tokenize(http: Request) -> JSONResponse:
        """Split a text or a conversation into tokens."""
        state.check_open()
        request = await read(http, partial(parsed, TokenizeRequest))
        asked = request.asked()
        n = asked.n_characters if isinstance(asked, RawPrompt) else sum(one.n_characters for one in asked)
        options = _options(request.tools)
        counted = state.engine.prepare(lambda model: model.tokenize(asked, options), n + options.n_characters)
        tokens = await asyncio.wrap_future(counted)
        pieces = state.engine.pieces(tokens) if request.with_pieces or request.return_token_strs else []
        strings = [piece.decode("utf-8", "replace") for piece in pieces]
        answer: dict[str, object] = {"count": len(tokens), "max_model_len": state.engine.placement.n_ctx}
        answer["tokens"] = tokens
        if request.with_pieces:
            answer["tokens"] = [
                {"id": token, "piece": _piece(piece)} for token, piece in zip(tokens, pieces, strict=True)
            ]
        if request.return_token_strs:
            answer["token_strs"] = strings
        return JSONResponse(answer)

    @app.post(DETOKENIZE, openapi_extra=body_of(DetokenizeRequest))
    async def detokenize(http: Request) -> JSONResponse:
        """Return the text of token ids."""
        state.check_open()
        request = await read(http, partial(parsed, DetokenizeRequest))
        n = len(request.tokens)
        text = await asyncio.wrap_future(
            state.engine.prepare(lambda model: model.detokenize(request.tokens), n)
        )
        return JSONResponse({"content": text, "prompt": text})  # llama-server's name, and vLLM's

    @app.post(APPLY_TEMPLATE, openapi_extra=body_of(ChatRequest))
    async def apply_template(http: Request) -> JSONResponse:
        """Return the conversation of a chat request as the model sees it; the request may have all that one may have."""
        state.check_open()
        question = await read(http, lambda body: parsed(ChatRequest, body).question())
        messages, options = question.messages, question.prompt_options
        n = sum(one.n_characters for one in messages) + options.n_characters
        rendered = state.engine.prepare(lambda model: model.rendered(messages, options), n)
        text = await asyncio.wrap_future(rendered)
        return JSONResponse({"prompt": text})

    @app.post(EXPERTS, include_in_schema=False)
    async def experts(http: Request) -> JSONResponse:
        state.check_open()
        request = await read(http, partial(parsed, ExpertsRequest))
        messages = conversation(request.messages)
        routing = await computed_beside(state, http, lambda model, is_over: model.routing(messages, is_over))
        return JSONResponse(asdict(routing))


def _options(tools: Sequence[ToolDefinition]) -> PromptOptions:
    """Return what a prompt has beside its messages; BadRequest for two tools of one name."""
    return PromptOptions(tool_use(tools, None, parallel=True).tools)


def _piece(piece: bytes) -> str | list[int]:
    """Return a token as text, or its bytes where they are part of a character, as llama-server does."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
