"""Anthropic's Messages answers: whole ones, the events of a stream, and errors in Anthropic's form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic_core import from_json

from mixcli.engine.sequence import Output
from mixcli.host.api.blocks import Block, Blocks, has_call
from mixcli.host.api.events import JsonObject
from mixcli.host.call import Call
from mixcli.host.protocol.errors import error_body


@dataclass
class MessagesWriter:
    """Writes what a call brings as Anthropic's Messages (an AnswerWriter)."""

    id: str
    model: str
    end: bytes = b""
    named_events: bool = True
    shows_progress: bool = False
    _blocks: Blocks = field(init=False)

    def __post_init__(self) -> None:
        self._blocks = Blocks(self.id)

    def opening(self, calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the message without content, and a ping."""
        usage = _usage(calls[0].n_prompt, 0, 0)
        yield {"type": "message_start", "message": self._message([], None, None, usage)}
        yield {"type": "ping"}

    def progress(self, _call: Call, _output: Output) -> Iterator[JsonObject]:
        """Return nothing: Anthropic has no event for it."""
        yield from ()

    def delta(self, _call: Call, output: Output) -> Iterator[JsonObject]:
        """Return the events of one output; a block is closed when another begins."""
        for piece in self._blocks.pieces(output):
            if self._blocks.begins(piece):
                yield from self._stop()
                self._blocks.add(piece)
                opened = _opened(self._blocks.all[-1])
                yield {"type": "content_block_start", "index": self._index, "content_block": opened}
            else:
                self._blocks.add(piece)
            if piece.text:
                delta = _delta(piece.kind, piece.text)
                yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def closing(self, _call: Call, last: Output) -> Iterator[JsonObject]:
        """Return what ends the last block, and why the message ends."""
        yield from self._stop()
        reason = {"stop_reason": _reason(last, self._blocks), "stop_sequence": last.stop}
        yield {"type": "message_delta", "delta": reason, "usage": _cost(last)}

    def accounts(self, _calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the last event."""
        yield {"type": "message_stop"}

    def failure(self, error: Exception) -> Iterator[JsonObject]:
        """Return the error as the last event of a stream."""
        yield error_message(error)[1]

    def whole(self, calls: Sequence[Call]) -> JsonObject:
        """Return a whole answer."""
        last = calls[0].outputs[-1]
        blocks = Blocks.of(self.id, calls[0].outputs)
        content = [_closed(block) for block in blocks.all]
        return self._message(content, _reason(last, blocks), last.stop, _cost(last))

    @property
    def _index(self) -> int:
        return len(self._blocks.all) - 1

    def _stop(self) -> Iterator[JsonObject]:
        if self._blocks.all:
            yield {"type": "content_block_stop", "index": self._index}

    def _message(
        self, content: list[JsonObject], stop_reason: str | None, stop: str | None, usage: JsonObject
    ) -> JsonObject:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": stop,
            "usage": usage,
        }


def error_message(error: BaseException) -> tuple[int, JsonObject]:
    """Return the HTTP status and the body of an error in Anthropic's form."""
    status, body = error_body(error)
    return status, body.to_anthropic(status)


def _opened(block: Block) -> JsonObject:
    """Return a block as it begins, without what deltas bring."""
    if block.kind == "call":
        return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _closed(block: Block) -> JsonObject:
    """Return a whole block. Of arguments that were cut off, what is complete counts, as in the snapshots of Anthropic's client."""
    if block.kind == "call":
        return {**_opened(block), "input": _arguments(block.text)}
    if block.kind == "reasoning":
        return {**_opened(block), "thinking": block.text}
    return {**_opened(block), "text": block.text}


def _arguments(text: str) -> object:
    try:
        found = from_json(text, allow_partial=True)
    except ValueError:  # not even the first brace has come
        found = {}
    return found if isinstance(found, dict) else {}


def _delta(kind: str, text: str) -> JsonObject:
    if kind == "call":
        return {"type": "input_json_delta", "partial_json": text}
    if kind == "reasoning":
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "text_delta", "text": text}


def _reason(last: Output, blocks: Blocks) -> str:
    if last.finish_reason == "length":
        return "max_tokens"
    if last.stop is not None:
        return "stop_sequence"
    return "tool_use" if has_call(blocks.all) else "end_turn"


def _cost(last: Output) -> JsonObject:
    if last.usage is None:
        return _usage(0, 0, 0)
    return _usage(last.usage.n_prompt, last.usage.n_cached, last.usage.n_generated)


def _usage(n_prompt: int, n_cached: int, n_generated: int) -> JsonObject:
    """Return the counts: to Anthropic what was read from the cache is not part of the input."""
    return {
        "input_tokens": n_prompt - n_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": n_cached,
        "output_tokens": n_generated,
    }
