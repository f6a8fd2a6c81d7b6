"""Decide from the head of a request whether it is let in, before anything else of it is read.

Threats and the checks against them. A web page in a browser can send requests to 127.0.0.1, and with DNS rebinding under a host name of
its own: the Host header must name this server. Requests that a page can send without a preflight (forms, text/plain) are not JSON: the
content type must be application/json. Responses carry no CORS header, so no page can read them, and a foreign Origin is refused. Any
address other than the loopback requires an API key, which is compared in constant time.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

# path: method; all other requests are refused
ROUTES: Mapping[str, str] = {
    "/health": "GET",
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/tokenize": "POST",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_BODY = 1 << 26  # bytes of a request

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Refusal:
    """The response to a refused request: HTTP status, OpenAI's error type, and the message."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True)
class Gate:
    """Lets in requests with the API `key` (None: no key required) and a Host header in `names` (lower case, without a port)."""

    names: frozenset[str]
    key: str | None = None

    def refusal(self, method: str, path: str, headers: Headers) -> Refusal | None:
        """Return why a request is refused; None lets it in."""
        return self._stranger(headers) or _elsewhere(method, path) or _shape(method, headers)

    def _stranger(self, headers: Headers) -> Refusal | None:
        host = _only(headers, b"host")
        if host is None or _name(host) not in self.names:
            return Refusal(403, "invalid_request_error", "Host header not allowed; see --allow-host")
        origin = _only(headers, b"origin")
        if origin is not None and _hostname(origin) not in self.names:
            return Refusal(
                403,
                "invalid_request_error",
                "Origin header not allowed; web pages of other origins cannot use this server",
            )
        if self.key is not None and not self._knows_key(_only(headers, b"authorization") or ""):
            return Refusal(
                401,
                "authentication_error",
                "missing or invalid API key; send the header Authorization: Bearer KEY",
            )
        return None

    def _knows_key(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        assert self.key is not None
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        return same and scheme.lower() == "bearer"


def _elsewhere(method: str, path: str) -> Refusal | None:
    if path not in ROUTES:
        return Refusal(
            404, "invalid_request_error", f"{path[:200]} not found; available paths: {', '.join(ROUTES)}"
        )
    if method != ROUTES[path]:
        return Refusal(405, "invalid_request_error", f"{method} not allowed for {path}; use {ROUTES[path]}")
    return None


def _shape(method: str, headers: Headers) -> Refusal | None:
    if method == "POST" and not _is_json(_only(headers, b"content-type")):
        return Refusal(415, "invalid_request_error", "unsupported content type; use application/json")
    length = _only(headers, b"content-length") or "0"
    return too_large() if length.isdigit() and int(length) > MAX_BODY else None


def too_large() -> Refusal:
    """Return the refusal of a body that is too large."""
    return Refusal(
        413,
        "invalid_request_error",
        f"the request body is larger than {MAX_BODY:,} bytes, which is the limit",
    )


def names_of(address: str, allowed: Sequence[str]) -> frozenset[str]:
    """Return the allowed host names of a server that listens on `address`: its own, the loopback's, and `allowed`."""
    own = [] if address in ("0.0.0.0", "::", "") else [address]
    return frozenset(name.lower() for name in (*LOOPBACK, *own, *allowed))


def _only(headers: Headers, name: bytes) -> str | None:
    """Return a header's value, None if absent; an invalid value if the header is repeated."""
    values = [value for key, value in headers if key.lower() == name]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else "\0"


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


def _name(host: str) -> str:
    """Return the name in a Host header without port and IPv6 brackets; empty if the header is invalid."""
    match = _HOST.fullmatch(host.lower())
    return (match[1] or match[2]) if match else ""


def _hostname(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""


def _is_json(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"
