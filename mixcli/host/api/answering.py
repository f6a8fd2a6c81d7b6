"""Answer a request of any API: run its calls, stream or collect their outputs, and keep what has an Idempotency-Key.

An API brings calls (mixcli.host.call) and an AnswerWriter, which puts outputs into that API's form.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Protocol

from fastapi import Request
from fastapi.responses import Response

from mixcli.engine.sequence import Output
from mixcli.host.api.events import ALIVE, BEAT, NO_STORE, JsonObject, event_bytes, event_stream
from mixcli.host.call import Call, Item
from mixcli.host.idempotency import REPLAYED, IdempotencyCache, Name, Reply
from mixcli.host.state import HostState

GONE = 499  # the client disconnected, so no one reads it
MAX_SILENT = 5  # beats until a stream begins with comments: an error has a status of its own only before

SILENCE = None  # what is yielded after BEAT seconds without an output

Arrival = tuple[Call, Output]
Finish = Callable[[Reply | None], None]


class AnswerWriter(Protocol):
    """Puts what calls bring into the form of one API: the events of a stream, or a whole answer.

    Each method but `whole` returns the events in their order, or none. A request of several choices has a call for each; `call.index`
    tells them apart, and `call.outputs` are all that came of it so far.
    """

    @property
    def end(self) -> bytes:
        """Return what a stream ends with, as OpenAI's [DONE]."""

    @property
    def named_events(self) -> bool:
        """Return whether each event has its `type` in a line before the data."""

    @property
    def shows_progress(self) -> bool:
        """Return whether the client asked how far the prompt has been read."""

    def opening(self, calls: Sequence[Call], /) -> Iterable[JsonObject]:
        """Return the first events, written once the first output is there."""

    def progress(self, call: Call, output: Output, /) -> Iterable[JsonObject]:
        """Return what tells how far the prompt has been read."""

    def delta(self, call: Call, output: Output, /) -> Iterable[JsonObject]:
        """Return the events of one output."""

    def closing(self, call: Call, last: Output, /) -> Iterable[JsonObject]:
        """Return what ends the answer of one call."""

    def accounts(self, calls: Sequence[Call], /) -> Iterable[JsonObject]:
        """Return what ends the stream, as the counts."""

    def failure(self, error: Exception) -> Iterable[JsonObject]:
        """Return what ends a stream that broke: the status line is gone by then."""

    def whole(self, calls: Sequence[Call], /) -> JsonObject:
        """Return the whole answer."""


async def respond(
    state: HostState,
    http: Request,
    calls: Sequence[Call],
    writer: AnswerWriter,
    *,
    stream: bool,
    name: Name | None = None,
    body: bytes = b"",
) -> Response:
    """Answer a request; `name` is its Idempotency-Key, `body` the digest that binds it to the request."""
    if name is None:
        return await _answer(state, http, calls, writer, _forget, stream=stream)
    with state.keep_alive.client():
        kept = await _claimed(state, name, body, http)
    if isinstance(kept, Response):
        return kept
    claim = _Claim(state.replies, name)
    try:
        return await _answer(state, http, calls, writer, claim.finish, stream=stream)
    except BaseException:
        claim.finish(None)
        raise


class _Claim:
    """The duty to report the outcome of a name; the first report counts."""

    def __init__(self, replies: IdempotencyCache, name: Name) -> None:
        self._replies, self._name = replies, name
        self._open = True

    def finish(self, reply: Reply | None) -> None:
        if self._open:
            self._open = False
            self._replies.finish(self._name, reply)


def _forget(_reply: Reply | None) -> None:
    """Keep nothing of an answer without a name."""


async def _claimed(state: HostState, name: Name, body: bytes, http: Request) -> Response | None:
    """Return the kept answer of a name, waiting while it is computed for another request; None where it is this one's to compute."""
    claim = asyncio.ensure_future(state.replies.claim(name, body))
    try:
        while not claim.done():
            await asyncio.wait({claim}, timeout=0.2)
            is_left = not claim.done() and (state.closing.is_set() or await http.is_disconnected())
            if (
                is_left and claim.cancel()
            ):  # unless it got the name meanwhile: then the answer, which ends at once, gives it back
                return Response(status_code=GONE)
        kept = claim.result()
    finally:
        if not claim.done():
            claim.cancel()
    if kept is None:
        return None
    return Response(kept.body, media_type=kept.media_type, headers={REPLAYED: "true", **NO_STORE})


async def _answer(
    state: HostState,
    http: Request,
    calls: Sequence[Call],
    writer: AnswerWriter,
    finish: Finish,
    *,
    stream: bool,
) -> Response:
    """Compute an answer; `finish` gets what went out once it is whole, or None."""
    outputs = _outputs(state, calls, http, progress=writer.shows_progress)
    # an error before the first token still has a status code of its own
    arrivals: list[Arrival] = []
    n_silent = 0
    async for arrival in outputs:
        if arrival is not SILENCE:
            arrivals.append(arrival)
        n_silent += arrival is SILENCE
        if stream and (arrivals or n_silent >= MAX_SILENT):
            break
    n_least = len(calls) if not stream else 0 if n_silent >= MAX_SILENT else 1
    if len(arrivals) < n_least or any(output.finish_reason == "abort" for _, output in arrivals):
        await outputs.aclose()
        finish(None)
        return Response(status_code=GONE)
    if stream:
        pieces = _stream(writer, calls, arrivals[0] if arrivals else SILENCE, outputs, finish)
        return event_stream(pieces, None if finish is _forget else finish)
    whole = json.dumps(writer.whole(calls), ensure_ascii=False, allow_nan=False)
    reply = Reply(whole.encode(), "application/json")
    finish(reply)
    return Response(reply.body, media_type=reply.media_type)


async def _outputs(
    state: HostState, calls: Sequence[Call], http: Request, *, progress: bool
) -> AsyncGenerator[Arrival | None, None]:
    """Yield the outputs of calls as they come, and SILENCE in between where nothing comes for BEAT seconds; when the client disconnects, all are aborted.

    The last output of each comes then too: "abort", or the answer's own end, where that was faster; so no finished answer is lost.
    """
    items: asyncio.Queue[tuple[Call, Item]] = asyncio.Queue()
    clock = asyncio.get_running_loop().time
    with state.keep_alive.client():
        leaving = asyncio.create_task(disconnected(http))
        leaving.add_done_callback(lambda _: _abort(state, calls))
        n_open, spoke = len(calls), clock()
        try:
            for call in calls:
                call.items = items
                state.engine.submit(call)
            while n_open:
                try:
                    async with asyncio.timeout_at(spoke + BEAT):
                        call, item = await items.get()
                except TimeoutError:
                    if state.engine.error is not None:
                        raise state.engine.error from None
                    if leaving.done() and state.closing.is_set():
                        return
                    spoke = clock()
                    yield SILENCE
                    continue
                if isinstance(item, BaseException):
                    try:
                        raise item
                    finally:
                        del item  # an error whose traceback holds itself would keep the call, too
                n_open -= item.is_last
                if item.progress is None or progress:
                    yield call, item
                    spoke = clock()
        finally:
            leaving.cancel()
            _abort(state, calls)
            for call in calls:  # a queue that holds its call would keep both until Python looks for cycles
                call.items = None


async def disconnected(http: Request) -> None:
    """Return when the client has left; its request has been read."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _abort(state: HostState, calls: Sequence[Call]) -> None:
    for call in calls:
        state.engine.abort(call)


async def _stream(
    writer: AnswerWriter,
    calls: Sequence[Call],
    first: Arrival | None,
    rest: AsyncGenerator[Arrival | None, None],
    finish: Finish,
) -> AsyncGenerator[bytes, None]:
    """Yield the events of each output in one piece; those of the last one with all that ends the stream."""
    is_open, n_open = False, len(calls)
    events: list[JsonObject] = []
    try:
        async with contextlib.aclosing(_chain(first, rest)) as arrivals:
            async for arrival in arrivals:
                if arrival is SILENCE:
                    yield ALIVE
                    continue
                if not is_open:
                    is_open = True
                    events += writer.opening(calls)
                events += _written(writer, *arrival)
                n_open -= arrival[1].is_last
                if events and n_open:
                    yield event_bytes(events, named=writer.named_events)
                    events = []
        events += writer.accounts(calls)
    except Exception as error:
        finish(None)
        events += writer.failure(error)
    if last := event_bytes(events, named=writer.named_events) + writer.end:
        yield last


def _written(writer: AnswerWriter, call: Call, output: Output) -> Iterable[JsonObject]:
    if output.progress is not None:
        yield from writer.progress(call, output)
    elif output.text or output.logprobs or output.segments:
        yield from writer.delta(call, output)
    if output.is_last:
        yield from writer.closing(call, output)


async def _chain(
    first: Arrival | None, rest: AsyncGenerator[Arrival | None, None]
) -> AsyncGenerator[Arrival | None, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for arrival in rest:
            yield arrival
