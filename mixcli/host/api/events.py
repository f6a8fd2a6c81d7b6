"""Server-sent events, as OpenAI writes them."""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable

from fastapi.responses import StreamingResponse

from mixcli.host.idempotency import Recording, Reply

JsonObject = dict[str, object]

EVENTS, DONE = "text/event-stream", b"data: [DONE]\n\n"
NO_STORE = {"Cache-Control": "no-store"}
BEAT = 2.0  # seconds of silence after which a stream shows that this process is alive
ALIVE = b": alive\n\n"  # the comment that does so, which every client of server-sent events skips


def event_stream(
    pieces: AsyncGenerator[bytes, None], finish: Callable[[Reply | None], None] | None = None
) -> StreamingResponse:
    """Stream pieces of server-sent events; `finish` gets all of them but comments once they have come to their end, or None."""

    async def recorded(finish: Callable[[Reply | None], None]) -> AsyncGenerator[bytes, None]:
        recording = Recording()
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if piece != ALIVE:
                        recording.add(piece)
                    yield piece
            finish(recording.reply(EVENTS))
        finally:
            finish(None)

    return StreamingResponse(recorded(finish) if finish else pieces, media_type=EVENTS, headers=NO_STORE)


def event_bytes(values: Iterable[JsonObject], *, named: bool = False) -> bytes:
    """Write events in one piece, because every program on the way pays for each piece.

    Where they are `named`, each has its `type` as the name of the event, as Anthropic's Messages and OpenAI's Responses do.
    """
    return b"".join(_event(value, named=named) for value in values)


def _event(value: JsonObject, *, named: bool) -> bytes:
    """Write one event, in ASCII: U+2028 and its like end a line for some readers."""
    name = f"event: {value['type']}\n" if named else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()
