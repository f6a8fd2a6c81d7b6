"""OpenAI's Responses: whole answers, and the events of a stream in the order that its clients expect."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from mixcli.engine.sequence import Output
from mixcli.host.api.blocks import Block, Blocks, Piece
from mixcli.host.api.events import JsonObject
from mixcli.host.api.responses_schema import ResponsesRequest
from mixcli.host.api.token_logprobs import Pieces, token_logprobs
from mixcli.host.call import Call
from mixcli.host.protocol.errors import error_body

IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED = "in_progress", "completed", "incomplete", "failed"
PREFIXES = {"text": "msg", "reasoning": "rs", "call": "fc"}


@dataclass
class ResponsesWriter:
    """Writes what a call brings as OpenAI's Responses (an AnswerWriter); `pieces` returns the bytes of tokens."""

    id: str
    model: str
    request: ResponsesRequest
    pieces: Pieces
    end: bytes = b""
    named_events: bool = True
    shows_progress: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    _blocks: Blocks = field(init=False)
    _logprobs: dict[int, list[JsonObject]] = field(default_factory=dict)  # of the texts, by their place
    _pending: list[JsonObject] = field(default_factory=list)  # of tokens whose text has not come yet
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._blocks = Blocks(self.id)

    def opening(self, _calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the response without output."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self._response(IN_PROGRESS, []))

    def progress(self, _call: Call, _output: Output) -> Iterator[JsonObject]:
        """Return nothing: Responses have no event for it."""
        yield from ()

    def delta(self, _call: Call, output: Output) -> Iterator[JsonObject]:
        """Return the events of one output; an item is closed when another begins."""
        self._pending += token_logprobs(self.pieces, output.logprobs)
        for piece in self._blocks.pieces(output):
            if self._blocks.begins(piece):
                yield from self._close()
                self._blocks.add(piece)
                yield from self._open()
            else:
                self._blocks.add(piece)
            logprobs, self._pending = self._pending, []
            if piece.kind == "text":
                self._logprobs.setdefault(len(self._blocks.all) - 1, []).extend(logprobs)
            if piece.text:
                yield self._delta(piece, logprobs)

    def closing(self, _call: Call, last: Output) -> Iterator[JsonObject]:
        """Return what ends the last item, and the whole response."""
        status = _status(last)
        yield from self._close(status)
        yield self._event(f"response.{status}", response=self._response(status, self._items(status), last))

    def accounts(self, _calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return nothing: the counts are part of the response."""
        yield from ()

    def failure(self, error: Exception) -> Iterator[JsonObject]:
        """Return the error, and the response that failed."""
        body = error_body(error)[1]
        code = body.code or body.type or "server_error"
        yield self._event("error", code=code, message=body.message, param=body.param)
        failed = self._response(FAILED, self._items(INCOMPLETE))
        failed["error"] = {"code": "server_error", "message": body.message}
        yield self._event("response.failed", response=failed)

    def whole(self, calls: Sequence[Call]) -> JsonObject:
        """Return a whole answer."""
        (call,) = calls
        for output in call.outputs:
            for _ in self.delta(call, output):
                pass
        last = call.outputs[-1]
        return self._response(_status(last), self._items(_status(last)), last)

    @property
    def _place(self) -> JsonObject:
        """Return the names of the open item in events."""
        index = len(self._blocks.all) - 1
        return {"item_id": self._item_id(index, self._blocks.all[-1]), "output_index": index}

    def _open(self) -> Iterator[JsonObject]:
        index, block = len(self._blocks.all) - 1, self._blocks.all[-1]
        empty = Block(block.kind, "", block.call_id, block.name)
        item = self._item(index, empty, IN_PROGRESS, begins=True)
        yield self._event("response.output_item.added", output_index=index, item=item)
        if block.kind != "call":
            part = _part(empty, [])
            yield self._event("response.content_part.added", **self._place, content_index=0, part=part)

    def _delta(self, piece: Piece, logprobs: list[JsonObject]) -> JsonObject:
        if piece.kind == "call":
            return self._event("response.function_call_arguments.delta", **self._place, delta=piece.text)
        place = {**self._place, "content_index": 0}
        if piece.kind == "reasoning":
            return self._event("response.reasoning_text.delta", **place, delta=piece.text)
        return self._event("response.output_text.delta", **place, delta=piece.text, logprobs=logprobs)

    def _close(self, status: str = COMPLETED) -> Iterator[JsonObject]:
        if not self._blocks.all:
            return
        index, block = len(self._blocks.all) - 1, self._blocks.all[-1]
        place, logprobs = self._place, self._logprobs.get(index, [])
        if block.kind == "call":
            done = {"name": block.name, "arguments": block.text}
            yield self._event("response.function_call_arguments.done", **place, **done)
        else:
            kind = "output_text" if block.kind == "text" else "reasoning_text"
            extra: JsonObject = {"logprobs": logprobs} if block.kind == "text" else {}
            yield self._event(f"response.{kind}.done", **place, content_index=0, text=block.text, **extra)
            part = _part(block, logprobs)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        item = self._item(index, block, status)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _event(self, kind: str, **fields: object) -> JsonObject:
        return {"type": kind, "sequence_number": next(self._numbers), **fields}

    def _items(self, status: str) -> list[JsonObject]:
        """Return all items; `status` is that of the last one, which may have been cut off."""
        blocks = self._blocks.all
        return [
            self._item(i, block, status if i == len(blocks) - 1 else COMPLETED)
            for i, block in enumerate(blocks)
        ]

    def _item_id(self, index: int, block: Block) -> str:
        return f"{PREFIXES[block.kind]}_{self.id.removeprefix('resp_')}_{index}"

    def _item(self, index: int, block: Block, status: str, *, begins: bool = False) -> JsonObject:
        """Return a block as an item; one that only `begins` has no parts."""
        item: JsonObject = {"id": self._item_id(index, block), "status": status}
        if block.kind == "call":
            called = {"call_id": block.call_id, "name": block.name, "arguments": block.text}
            return {"type": "function_call", **item, **called}
        content = [] if begins else [_part(block, self._logprobs.get(index, []))]
        if block.kind == "reasoning":
            return {"type": "reasoning", **item, "summary": [], "content": content}
        return {"type": "message", **item, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[JsonObject], last: Output | None = None) -> JsonObject:
        asked = self.request
        cut = {"reason": "max_output_tokens"} if status == INCOMPLETE else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": asked.reasoning.effort, "summary": None},
            "store": False,
            "temperature": asked.temperature,
            "text": asked.text.model_dump(by_alias=True, exclude_none=True) or {"format": {"type": "text"}},
            "tool_choice": asked.model_dump(include={"tool_choice"})["tool_choice"],
            "tools": [tool.model_dump() for tool in asked.tools],
            "top_p": asked.top_p,
            "truncation": asked.truncation,
            "metadata": asked.metadata,
            "usage": _usage(last),
            **(
                {} if asked.service_tier is None else {"service_tier": "default"}
            ),  # all requests have the same priority
        }


def _status(last: Output) -> str:
    return INCOMPLETE if last.finish_reason == "length" else COMPLETED


def _part(block: Block, logprobs: list[JsonObject]) -> JsonObject:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": logprobs}


def _usage(last: Output | None) -> JsonObject | None:
    if last is None or last.usage is None:
        return None
    cost = last.usage
    return {
        "input_tokens": cost.n_prompt,
        "input_tokens_details": {"cached_tokens": cost.n_cached, "cache_write_tokens": 0},
        "output_tokens": cost.n_generated,
        "output_tokens_details": {"reasoning_tokens": cost.n_reasoning},
        "total_tokens": cost.n_prompt + cost.n_generated,
    }
