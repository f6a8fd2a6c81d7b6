"""POST /v1/completions: OpenAI's text completions, for base models and for clients that write the whole prompt."""

import asyncio
import uuid
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mixcli.host.api.answering import respond
from mixcli.host.api.completion_response import CompletionResponseWriter, PromptEcho
from mixcli.host.api.completion_schema import Completion, CompletionRequest
from mixcli.host.api.events import event_stream
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.call import Call
from mixcli.host.idempotency import CLIENT, HEADER, digest, name_of
from mixcli.host.preparation import Preparation
from mixcli.host.protocol.paths import COMPLETIONS
from mixcli.host.state import HostState
from mixcli.prompts.raw_prompt import RawPrompt


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the route to the app."""

    @app.post(COMPLETIONS, openapi_extra=body_of(CompletionRequest))
    async def complete(http: Request) -> Response:
        """Continue a text."""
        state.check_open()
        name = name_of(http.headers.get(CLIENT, ""), http.headers.getlist(HEADER))
        completion, body = await read(http, _completion)
        stream, is_fixed = completion.chat.stream, completion.question.deterministic
        id_ = f"cmpl-{body.hex()[:32] if is_fixed else uuid.uuid4().hex}"
        echoes: list[PromptEcho] = []
        is_alone = completion.request.max_tokens == 0
        if completion.request.echo or is_alone:
            with state.keep_alive.client():
                echoes = [await _echo(state, completion, prompt) for prompt in completion.prompts]
        writer = CompletionResponseWriter(id_, state.spec.name.label, completion, state.engine.pieces, echoes)
        if is_alone:
            return event_stream(writer.alone_streamed()) if stream else JSONResponse(writer.alone())
        questions = [one for prompt in completion.prompts for one in completion.questions(prompt)]
        loop = asyncio.get_running_loop()
        calls = [
            Call(f"{id_}-{uuid.uuid4().hex}", question, loop, as_whole=not stream, index=index)
            for index, question in enumerate(questions)
        ]
        return await respond(state, http, calls, writer, stream=stream, name=name, body=body)


def _completion(raw: bytes) -> tuple[Completion, bytes]:
    """Check a whole request; with the digest that binds its Idempotency-Key to it."""
    request = parsed(CompletionRequest, raw)
    return request.read(), digest(request.model_dump())


async def _echo(state: HostState, completion: Completion, prompt: RawPrompt) -> PromptEcho:
    """Return what comes back of a prompt."""

    def encoded(model: Preparation) -> tuple[list[int], str]:
        tokens = model.encode_raw(prompt)
        return tokens, prompt.text if prompt.tokens is None else model.detokenize(tokens)

    tokens, text = await asyncio.wrap_future(state.engine.prepare(encoded, prompt.n_characters))
    if not completion.request.echo:
        return PromptEcho(n_tokens=len(tokens))
    n_top = completion.request.logprobs
    if n_top is None:
        return PromptEcho(text, len(tokens))
    score = partial(Preparation.prompt_logprobs, tokens=tokens, n_top=n_top)
    logprobs = await asyncio.wrap_future(state.engine.compute_beside(score))
    return PromptEcho(text, len(tokens), tuple(tokens), tuple(logprobs))
