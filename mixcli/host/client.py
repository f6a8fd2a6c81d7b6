"""The thin client that every front end uses: OpenAI's chat API over a host's unix socket, on the standard library."""

import http.client
import json
import socket
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixcli.errors import ModelDied
from mixcli.host.protocol import ATTACH, raise_error

# how a connection looks whose other end went away
GONE = (ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine)


@dataclass(frozen=True)
class Delta:
    """A piece of an answer; `finish_reason`, `usage` and `timings` come with the last ones."""

    text: str
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)


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
                choice = (event.get("choices") or [{}])[0]
                reason = choice.get("finish_reason")
                finished = finished or reason is not None
                text = (choice.get("delta") or {}).get("content") or ""
                yield Delta(text, reason, event.get("usage") or {}, event.get("timings") or {})
        except GONE as error:
            raise ModelDied("the model process went away while it answered") from error
        if not finished:
            raise ModelDied("the model process went away while it answered")

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
