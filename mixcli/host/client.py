"""The thin client that every front end uses: OpenAI's chat API on the standard library, over a host's unix socket.

`ChatClient` is the protocol, `HostClient` reaches a host of this machine; endpoint.py reaches any other server.
"""

import http.client
import json
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from mixcli.errors import Busy, MixcliError, ModelDied
from mixcli.host.protocol import ATTACH, EXPERTS, raise_error

CHAT = "/v1/chat/completions"
BUSY = (429, 503)
NONE: Mapping[str, str] = MappingProxyType({})
MAX_REFUSAL = 1 << 16  # bytes that are read of a refusal
MAX_WAIT = 60.0  # seconds that a server may ask for at a time

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


class ChatClient:
    """OpenAI's chat API over connections that a subclass makes; one connection a call."""

    prefix = ""  # of every path
    lost: tuple[type[Exception], ...] = GONE  # how it looks when the server is not there any more
    headers: Mapping[str, str] = NONE
    defaults: Mapping[str, Any] = NONE  # of every request for an answer

    def chat(self, body: dict[str, Any]) -> Generator[Delta, None, None]:
        """Stream one answer; the body is OpenAI's chat completion request.

        Raises the error that the server reports, or what `gone` gives when it goes away before the answer has ended.
        """
        request = {**self.defaults, **body, "stream": True, "stream_options": {"include_usage": True}}
        finished = False
        try:
            for event in self._events(self._request("POST", CHAT, request)):
                if "error" in event:
                    raise_error(event)
                delta = _delta(event)
                finished = finished or delta.finish_reason is not None
                yield delta
        except self.lost as error:
            raise self.gone("while it answered", error) from error
        if not finished:
            raise self.gone("while it answered")

    def complete(self, body: dict[str, Any], key: str = "") -> dict[str, Any]:
        """Give a whole answer as OpenAI's chat completion object; errors as in `chat`.

        `key` names the request (Idempotency-Key): a host that has answered it already answers again without computing.
        """
        return self._value(CHAT, {**self.defaults, **body}, {"Idempotency-Key": key} if key else {})

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """Count the tokens of {"messages": [...]} or {"prompt": text}: count, tokens and max_model_len."""
        return self._value("/tokenize", body)

    def gone(self, when: str, cause: Exception | None = None, /) -> MixcliError:
        """Give the error of a server that went away."""
        raise NotImplementedError

    def _connection(self) -> http.client.HTTPConnection:
        raise NotImplementedError

    def _value(self, path: str, body: dict[str, Any], headers: Mapping[str, str] = NONE) -> dict[str, Any]:
        try:
            with self._request("POST", path, body, headers) as response:
                value = json.loads(response.read())
        except self.lost as error:
            raise self.gone("before it answered", error) from error
        except ValueError as error:
            raise MixcliError(f"the server's answer to {path} is no JSON") from error
        if not isinstance(value, dict):
            raise MixcliError(f"the server's answer to {path} is no JSON object")
        return value

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] = NONE,
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        payload = None if body is None else json.dumps(body).encode()
        said = {"Content-Type": "application/json", "Connection": "close", **self.headers, **headers}
        try:
            connection.request(method, self.prefix + path, payload, said)
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        if response.status >= 300:
            with response:
                _refuse(response)
        return response

    @staticmethod
    def _events(response: http.client.HTTPResponse) -> Generator[dict[str, Any], None, None]:
        """Yield the JSON of every server-sent event up to [DONE]; closing the iterator hangs up."""
        with response:
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])


class HostClient(ChatClient):
    """Talks with the host behind one unix socket."""

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

    def experts(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Give how the last answer of a conversation was routed: n_expert, n_expert_used, and a count for each layer and expert."""
        return self._value(EXPERTS, {"messages": messages})

    def gone(self, when: str, _cause: Exception | None = None, /) -> MixcliError:
        return ModelDied(f"the model process went away {when}")

    def _connection(self) -> http.client.HTTPConnection:
        return _UnixConnection(self.path)


def _refuse(response: http.client.HTTPResponse) -> NoReturn:
    """Raise what a refusal says: its own error where it has one, else its status."""
    raw = response.read(MAX_REFUSAL)
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "error" not in body:
        words = raw.decode("utf-8", "replace").strip().splitlines()[:1]
        body = {
            "error": {
                "message": f"the server answered {response.status} {response.reason}: {' '.join(words)[:200]}"
            }
        }
    if response.status in BUSY:
        detail = body["error"]
        message = detail.get("message") if isinstance(detail, dict) else detail
        raise Busy(str(message), _seconds(response.getheader("Retry-After")))
    raise_error(body, response.status)


def _seconds(text: str | None) -> float:
    """Read a Retry-After in seconds; a date, or nothing, is a second."""
    return min(float(text), MAX_WAIT) if text and text.strip().isdigit() else 1.0
