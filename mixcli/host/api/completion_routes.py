"""POST /v1/completions: OpenAI's text completions, for base models and for clients that write the whole prompt."""

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mixcli.engine.faults import IsOver
from mixcli.errors import BadRequest
from mixcli.host.api.answering import respond
from mixcli.host.api.beside import computed_beside
from mixcli.host.api.completion_response import CompletionResponseWriter, PromptEcho
from mixcli.host.api.completion_schema import Completion, CompletionRequest
from mixcli.host.api.events import event_stream
from mixcli.host.api.json_body import parsed, read
from mixcli.host.api.openapi import body_of
from mixcli.host.call import Call
from mixcli.host.idempotency import CLIENT, HEADER, digest, name_of
from mixcli.host.preparation import Preparation, Scores
from mixcli.host.protocol.paths import COMPLETIONS
from mixcli.host.state import HostState
from mixcli.prompts.raw_prompt import RawPrompt

MAX_LOGPROBS = (
    1 << 20
)  # of the prompts of one request: each takes a hundred bytes until the answer is written


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
                echoes = await _echoes(state, http, completion)
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


async def _echoes(state: HostState, http: Request, completion: Completion) -> list[PromptEcho]:
    """Return what comes back of each prompt; BadRequest for more log-probabilities than one answer may have."""
    known = [await _encoded(state, prompt) for prompt in completion.prompts]
    if not completion.request.echo:
        return [PromptEcho(n_tokens=len(tokens)) for tokens, _ in known]
    n_top = completion.request.logprobs
    if n_top is None:
        return [PromptEcho(text, len(tokens)) for tokens, text in known]
    if (n := sum((1 + n_top) * len(tokens) for tokens, _ in known)) > MAX_LOGPROBS:
        raise BadRequest(
            f"the prompts have {n:,} log-probabilities; the limit is {MAX_LOGPROBS:,}; send fewer prompts or a lower logprobs",
            param="logprobs",
        )
    echoes = []
    for tokens, text in known:
        logprobs = await computed_beside(state, http, partial(_scored, tokens, n_top))
        echoes.append(PromptEcho(text, len(tokens), tuple(tokens), tuple(logprobs)))
    return echoes


async def _encoded(state: HostState, prompt: RawPrompt) -> tuple[list[int], str]:
    """Return a prompt's tokens and its text."""

    def encoded(model: Preparation) -> tuple[list[int], str]:
        tokens = model.encode_raw(prompt)
        return tokens, prompt.text if prompt.tokens is None else model.detokenize(tokens)

    return await asyncio.wrap_future(state.engine.prepare(encoded, prompt.n_characters))


def _scored(tokens: Sequence[int], n_top: int, model: Preparation, is_over: IsOver) -> Scores:
    return model.prompt_logprobs(tokens, n_top, is_over)
