"""The thin client that every front end uses: OpenAI's chat API over a host's unix socket, on the standard library."""

import http.client
import json
import socket
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixcli.errors import ModelDied
from mixcli.host.protocol import ATTACH, EXPERTS, raise_error

# how a connection looks whose other end went away
GONE = (ConnectionError, FileNotFoundError, http.client.IncompleteRead, http.client.BadStatusLine)


@dataclass(frozen=True)
class Delta:
    """A piece of an answer; `finish_reason`, `usage`, `timings`, `token_ids` and `label_probs` come with the last ones.

    While a long prompt is read, deltas without text bring `prompt_progress` (total, cache and processed tokens, time_ms);
    `dropped_messages` counts what was left out so that the conversation fits into the context.
    """

    text: str
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    prompt_progress: dict[str, Any] = field(default_factory=dict)
    dropped_messages: int = 0
    label_probs: dict[str, float] = field(default_factory=dict)


def _delta(event: dict[str, Any]) -> Delta:
    """Read one event of a stream; what a server leaves out is empty."""
    choice = (event.get("choices") or [{}])[0]
    return Delta(
        (choice.get("delta") or {}).get("content") or "",
        choice.get("finish_reason"),
        event.get("usage") or {},
        event.get("timings") or {},
        tuple(choice.get("token_ids") or event.get("token_ids") or ()),
        event.get("prompt_progress") or {},
        event.get("dropped_messages") or 0,
        choice.get("label_probs") or {},
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


class HostClient:
    """Talks with the host behind one unix socket; one connection a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def health(self) -> dict[str, Any]:
        """Give the host's state; OSError when nobody listens."""
        with self._request("GET", "/health") as response:
            body: dict[str, Any] = json.loads(response.read())
        return body

    def attach(self, keep_alive: float) -> Generator[dict[str, Any], None, None]:
        """Yield the host's states while holding the model loaded; OSError at once when nobody listens.

        Closing the iterator leaves; `keep_alive` seconds later the host may end. The iterator ends when the host does.
        """
        return self._events(self._request("GET", f"{ATTACH}?keep_alive={keep_alive}"))

    def chat(self, body: dict[str, Any]) -> Generator[Delta, None, None]:
        """Stream one answer; the body is OpenAI's chat completion request.

        Raises the error that the host reports, or ModelDied when the host goes away before the answer has ended.
        """
        request = {**body, "stream": True, "stream_options": {"include_usage": True}}
        finished = False
        try:
            for event in self._events(self._request("POST", "/v1/chat/completions", request)):
                if "error" in event:
                    raise_error(event)
                delta = _delta(event)
                finished = finished or delta.finish_reason is not None
                yield delta
        except GONE as error:
            raise ModelDied("the model process went away while it answered") from error
        if not finished:
            raise ModelDied("the model process went away while it answered")

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """Count the tokens of {"messages": [...]} or {"prompt": text}: count, tokens and max_model_len."""
        return self._value("/tokenize", body)

    def experts(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Give how the last answer of a conversation was routed: n_expert, n_expert_used, and a count for each layer and expert."""
        return self._value(EXPERTS, {"messages": messages})

    def _value(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._request("POST", path, body) as response:
                value: dict[str, Any] = json.loads(response.read())
        except GONE as error:
            raise ModelDied("the model process went away before it answered") from error
        return value

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> http.client.HTTPResponse:
        connection = _UnixConnection(self.path)
        payload = None if body is None else json.dumps(body).encode()
        try:
            connection.request(
                method, path, payload, {"Content-Type": "application/json", "Connection": "close"}
            )
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if response.status >= 400:
            with response:
                raise_error(json.loads(response.read()))
        return response

    @staticmethod
    def _events(response: http.client.HTTPResponse) -> Generator[dict[str, Any], None, None]:
        """Yield the JSON of every server-sent event up to [DONE]; closing the iterator hangs up."""
        with response:
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])
