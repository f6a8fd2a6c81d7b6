"""Who may ask what: decided from a request's head alone, before anything of it is used.

Threats and what stands against them. A web page that a browser shows can send requests to 127.0.0.1, and with DNS rebinding even under
a name of its own: the Host must be one that this server goes by. Requests that a page may send without asking first (forms, text/plain) are
no JSON: the content type must be. Answers carry no CORS header, so no page can read one, and a foreign Origin is refused. Whoever
reaches another address than the loopback needs the key, which is compared in constant time.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

# path: method; nothing else is passed on
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
    """Why a request goes no further: an HTTP status, OpenAI's error type, and a sentence."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True)
class Gate:
    """Lets in who knows the `key` (None: nobody needs one) and calls this server by one of its `names` (lower case, without a port)."""

    names: frozenset[str]
    key: str | None = None

    def refusal(self, method: str, path: str, headers: Headers) -> Refusal | None:
        """Return why a request is refused; None lets it in."""
        return self._stranger(headers) or _elsewhere(method, path) or _shape(method, headers)

    def _stranger(self, headers: Headers) -> Refusal | None:
        host = _only(headers, b"host")
        if host is None or _name(host) not in self.names:
            return Refusal(
                403, "invalid_request_error", "this server does not go by that Host; see --allow-host"
            )
        origin = _only(headers, b"origin")
        if origin is not None and _hostname(origin) not in self.names:
            return Refusal(403, "invalid_request_error", "pages of other origins are not served")
        if self.key is not None and not self._knows_key(_only(headers, b"authorization") or ""):
            return Refusal(
                401, "authentication_error", "the key is missing or wrong: Authorization: Bearer KEY"
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
            404, "invalid_request_error", f"there is nothing at {path[:200]}; there is {', '.join(ROUTES)}"
        )
    if method != ROUTES[path]:
        return Refusal(405, "invalid_request_error", f"{path} takes {ROUTES[path]}, not {method}")
    return None


def _shape(method: str, headers: Headers) -> Refusal | None:
    if method == "POST" and not _is_json(_only(headers, b"content-type")):
        return Refusal(415, "invalid_request_error", "the content type must be application/json")
    length = _only(headers, b"content-length") or "0"
    return too_large() if length.isdigit() and int(length) > MAX_BODY else None


def too_large() -> Refusal:
    """Refuse a body that is too large."""
    return Refusal(413, "invalid_request_error", f"a request may have {MAX_BODY:,} bytes")


def names_of(address: str, allowed: Sequence[str]) -> frozenset[str]:
    """Return the names of a server that listens on `address`: its own, the loopback's, and those that were allowed."""
    own = [] if address in ("0.0.0.0", "::", "") else [address]
    return frozenset(name.lower() for name in (*LOOPBACK, *own, *allowed))


def _only(headers: Headers, name: bytes) -> str | None:
    """Return a header that is there once; twice is as good as a wrong one."""
    values = [value for key, value in headers if key.lower() == name]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else "\0"


_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?")


def _name(host: str) -> str:
    """Return the name in a Host header, without its port and the brackets of IPv6; nothing where it is no such header."""
    match = _HOST.fullmatch(host.lower())
    return (match[1] or match[2]) if match else ""


def _hostname(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""


def _is_json(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/json"
