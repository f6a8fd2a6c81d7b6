"""A real server of OpenAI's chat API that answers at once: the label that the prompt's last word names, or the first one.

    python quick_server.py SECONDS_PER_ANSWER [busy]

It prints its port. With `busy` every third request is told to come back (429). Every request with "poison" in it is refused (400).
"""

import asyncio
import json
import sys


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, int]) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        ),
        0,
    )
    body = json.loads(await reader.readexactly(length)) if length else {}
    state["n"] += 1
    if PAUSE:
        await asyncio.sleep(PAUSE)
    if BUSY and state["n"] % 3 == 0:
        write(writer, b"429 Too Many Requests", {"error": {"message": "slow down"}}, b"Retry-After: 0\r\n")
    elif head.startswith(b"GET /v1/models"):
        write(writer, b"200 OK", {"object": "list", "data": [{"id": "quick"}]})
    elif "poison" in json.dumps(body["messages"]):
        write(
            writer,
            b"400 Bad Request",
            {"error": {"message": "no poison, please", "type": "invalid_request_error"}},
        )
    else:
        write(writer, b"200 OK", completion(body))
    await writer.drain()
    writer.close()


def completion(body: dict) -> dict:  # type: ignore[type-arg]
    labels = body.get("structured_outputs", {}).get("choice", ["yes"])
    last = body["messages"][-1]["content"].split()[-1]
    label = last if last in labels else labels[0]
    choice = {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
    return {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    }


def write(writer: asyncio.StreamWriter, status: bytes, body: dict, extra: bytes = b"") -> None:  # type: ignore[type-arg]
    raw = json.dumps(body).encode()
    writer.write(
        b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%bConnection: close\r\n\r\n"
        % (status, len(raw), extra)
        + raw
    )


async def main() -> None:
    state = {"n": 0}
    server = await asyncio.start_server(lambda r, w: answer(r, w, state), "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


PAUSE = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
BUSY = "busy" in sys.argv

if __name__ == "__main__":
    asyncio.run(main())
