"""Server-sent events, as OpenAI writes them."""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable

from fastapi.responses import StreamingResponse

from mixcli.host.idempotency import Recording, Reply

JsonObject = dict[str, object]

EVENTS, DONE = "text/event-stream", b"data: [DONE]\n\n"
NO_STORE = {"Cache-Control": "no-store"}
BEAT = 2.0  # seconds of silence after which a stream shows that this process is alive
ALIVE = None  # what stands for it in a stream: a comment, which every client of server-sent events skips


def event_stream(
    values: AsyncGenerator[JsonObject | None, None],
    finish: Callable[[Reply | None], None] | None = None,
    *,
    end: bytes = DONE,
    named: bool = False,
) -> StreamingResponse:
    """Stream values as server-sent events, with `end` behind the last one; `finish` gets all of it once they have come to their end, or None.

    Where events are `named`, each has its `type` as the name of the event, as Anthropic's Messages and OpenAI's Responses do.
    """

    async def lines() -> AsyncGenerator[bytes, None]:
        recording = Recording()
        try:
            async with contextlib.aclosing(values):
                async for value in values:
                    if value is ALIVE:
                        yield b": alive\n\n"
                        continue
                    piece = _event(value, named=named)
                    if finish:
                        recording.add(piece)
                    yield piece
            if finish:
                recording.add(end)
                finish(recording.reply(EVENTS))
            yield end
        finally:
            if finish:
                finish(None)

    return StreamingResponse(lines(), media_type=EVENTS, headers=NO_STORE)


def _event(value: JsonObject, *, named: bool) -> bytes:
    """Write one event, in ASCII: U+2028 and its like end a line for some readers."""
    name = f"event: {value['type']}\n" if named else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()
