"""Errors that the gate itself answers with, in OpenAI's form or Anthropic's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixcli.host.protocol.body_limits import MAX_BODY, WHOLE_BODY
from mixcli.host.protocol.errors import ErrorBody, is_anthropic

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Refusal:
    """The response to a refused request: HTTP status, OpenAI's error type, the message, and OpenAI's code and the
    field of the request where it has them.

    `retry_after` is seconds. `fields` stand beside the error, `extra` are headers.
    """

    status: int
    kind: str
    message: str
    code: str | None = None
    retry_after: int | None = None
    param: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    extra: tuple[Header, ...] = ()

    @property
    def headers(self) -> list[Header]:
        retry = [] if self.retry_after is None else [(b"retry-after", b"%d" % self.retry_after)]
        return [(b"content-type", b"application/json"), *retry, *self.extra]

    def body(self, path: str = "") -> bytes:
        """Return the body in the form that the clients of a path expect."""
        error = ErrorBody(self.message, self.kind, self.param, self.code).to_json_at(path, self.status)
        return json.dumps({**self.fields, **error}).encode()

    def event(self, path: str) -> bytes:
        """Return the last event of a stream that broke."""
        return error_event(path, self.body(path))


def error_event(path: str, body: bytes) -> bytes:
    """Return an error as an event of a stream; `body` is JSON on one line, in the form that the clients of a path expect."""
    name = b"event: error\n" if is_anthropic(path) else b""
    return name + b"data: " + body + b"\n\n"


def invalid(status: int, message: str, code: str | None = None) -> Refusal:
    """Return the refusal of a request that its client must change."""
    return Refusal(status, "invalid_request_error", message, code)


def unavailable(message: str, retry_after: int = 5, **fields: object) -> Refusal:
    """Return the refusal of a request that may be repeated as it is."""
    return Refusal(503, "server_error", message, retry_after=retry_after, fields=fields)


TOO_LARGE = invalid(413, f"the request body is larger than {MAX_BODY:,} bytes; shorten it")
TOO_SLOW = invalid(408, f"the request body was incomplete after {WHOLE_BODY:.0f} s")
NOT_HTTP = invalid(400, "invalid HTTP request")
TWO_LENGTHS = Refusal(
    400,
    "invalid_request_error",
    "Content-Length and Transfer-Encoding are both given; send one of them",
    extra=((b"connection", b"close"),),
)
UNLOADED = unavailable("no model is loaded; the next completion request loads it again")
UNRESPONSIVE = unavailable(
    "the model process does not respond; end it with `mixcli stop`; the next request starts a new one"
)


def torn(cause: str) -> Refusal:
    """Return the error of an answer that broke off, with its cause where that is known."""
    why = f" ({cause})" if cause else ""
    return unavailable(f"the model process crashed during the answer{why}; retry to load the model again")
