"""Decide from the head of a request whether it is let in, before anything else of it is read.

Threats and the checks against them. A web page in a browser can send requests to 127.0.0.1, and with DNS rebinding under a host name of
its own: without an API key the Host header must name this server. Requests that a page can send without a preflight (forms, text/plain) are
not JSON: the content type must be application/json. A foreign Origin is refused, and answers carry CORS headers only for origins that the user
named. A key keeps pages out too, so with one any Host and Origin will do. Any address other than the loopback requires a key.
A request with two lengths, of which a reverse proxy may believe the other, could smuggle a second one past it.
The files of the chat page are let in like a path that needs no key: they are the same for all, and what they ask for needs it.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urlsplit

from mixcli.host.protocol.body_limits import MAX_BODY
from mixcli.host.protocol.paths import HEALTH, Route, find_route, public_paths
from mixcli.host.protocol.port_record import LOOK, LOOK_HEADER
from mixcli.serve.chat_page import PageFile
from mixcli.serve.cors import Cors
from mixcli.serve.keys import digest
from mixcli.serve.refusal import TOO_LARGE, TWO_LENGTHS, Header, Refusal, invalid

LOOPBACK = ("localhost", "127.0.0.1", "::1")

Headers = Sequence[Header]


class Keys(Protocol):
    """The API keys that are valid now."""

    def knows(self, key: str) -> bool:
        """Return whether a key is valid."""


@dataclass(frozen=True)
class Accepted:
    """A request that is let in: its route, its path as the host has it, and who sent it.

    `client` is a hash of the key that was sent, or of none. With `is_brief` it learns no more than whether the model is ready.
    """

    route: Route
    path: str
    client: bytes
    is_brief: bool = False


@dataclass(frozen=True)
class Preflight:
    """A question with OPTIONS, and the headers of its answer."""

    headers: list[Header]


@dataclass(frozen=True)
class Gate:
    """Lets in requests with one of `keys`; without any (None) those with a Host header in `names` (lower case, without a port).

    `pages` are the files of the chat page by their paths; none where there is no such page. `look_key` is that of this user's own programs, which
    may look at the state of the port.
    """

    names: frozenset[str]
    keys: Keys | None = None
    cors: Cors = field(default_factory=Cors)
    pages: Mapping[str, PageFile] = field(default_factory=dict)
    look_key: str = ""

    def judge(self, method: str, path: str, headers: Headers) -> Accepted | Preflight | PageFile | Refusal:
        """Return what becomes of a request."""
        if only(headers, b"content-length") is not None and only(headers, b"transfer-encoding") is not None:
            return TWO_LENGTHS
        if path in self.pages:
            return self._page(method, path, headers)
        found = find_route(path)
        key = self._key(headers)
        client = digest(key or "")
        if method == "OPTIONS" and found:
            is_open = found[0].path == HEALTH
            return (None if is_open else self._foreign(headers)) or self._preflight(headers, found[0])
        stranger = self._stranger(headers, key)
        if found and found[0].path == HEALTH and method in found[0].methods:
            return Accepted(*found, client, is_brief=stranger is not None)
        if found and not found[0].needs_key:
            stranger = self._foreign(headers)
        refusal = stranger or _elsewhere(method, path, found) or _shape(method, headers)
        if refusal is not None:
            return refusal
        assert found is not None
        return Accepted(*found, client)

    def is_look(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether a program of this user looks at the state of the port: only this user can read the key in its record."""
        sent = only(headers, LOOK_HEADER.lower().encode()) or ""
        is_own = bool(self.look_key) and hmac.compare_digest(sent.encode("latin-1"), self.look_key.encode())
        return is_own and method == "GET" and path == LOOK

    def _page(self, method: str, path: str, headers: Headers) -> Preflight | PageFile | Refusal:
        route = Route(path, "GET", needs_key=False)
        refusal = self._foreign(headers)
        if method == "OPTIONS":
            return refusal or self._preflight(headers, route)
        return refusal or _elsewhere(method, path, (route, path)) or self.pages[path]

    def _preflight(self, headers: Headers, route: Route) -> Preflight:
        origin, asked = only(headers, b"origin"), only(headers, b"access-control-request-headers")
        return Preflight(self.cors.preflight(origin, asked, route))

    def _key(self, headers: Headers) -> str | None:
        """Return the valid key among those that were sent; without keys of our own the first one. None where there is none."""
        sent = keys_in(headers)
        known = sent if self.keys is None else [key for key in sent if self.keys.knows(key)]
        return known[0] if known else None

    def _stranger(self, headers: Headers, key: str | None) -> Refusal | None:
        if self.keys is not None and key is None:
            return Refusal(
                401,
                "authentication_error",
                "missing or invalid API key; send the header Authorization: Bearer KEY, or x-api-key: KEY",
                "invalid_api_key",
            )
        return self._foreign(headers)

    def _foreign(self, headers: Headers) -> Refusal | None:
        """Return the refusal of what a web page may have sent; with a key this is not needed."""
        if self.keys is not None:
            return None
        host = only(headers, b"host")
        if host is None or _name(host) not in self.names:
            return invalid(403, "Host header not allowed; see --allow-host")
        origin = only(headers, b"origin")
        if origin is not None and not self.cors.allows(origin) and _hostname(origin) not in self.names:
            return invalid(403, "Origin header not allowed; web pages of other origins need --allow-origin")
        return None


def keys_in(headers: Headers) -> list[str]:
    """Return the API keys that a request was sent with, as OpenAI's clients send them and as Anthropic's do."""
    scheme, _, bearer = (only(headers, b"authorization") or "").strip().partition(" ")
    sent = [bearer.strip() if scheme.lower() == "bearer" else "", (only(headers, b"x-api-key") or "").strip()]
    return [key for key in sent if key]


def _elsewhere(method: str, path: str, found: tuple[Route, str] | None) -> Refusal | None:
    if found is None:
        page = "`mixcli serve --ui` has a chat page there; " if path == "/" else ""
        sentence = f"{path[:200]} not found; {page}available paths: {', '.join(public_paths())}"
        return invalid(404, sentence, "unknown_url")
    route, _ = found
    if method not in route.methods:
        sentence = f"{method} not allowed for {path[:200]}; use {route.method}"
        return replace(
            invalid(405, sentence, "method_not_supported"),
            extra=((b"allow", ", ".join(route.methods).encode()),),
        )
    return None


def _shape(method: str, headers: Headers) -> Refusal | None:
    if method == "POST" and not _is_json(only(headers, b"content-type")):
        return invalid(415, "unsupported content type; use application/json")
    if (only(headers, b"content-encoding") or "identity").strip().lower() != "identity":
        return invalid(415, "unsupported content encoding; send the body uncompressed")
    length = only(headers, b"content-length") or "0"
    return TOO_LARGE if length.isdigit() and int(length) > MAX_BODY else None


def names_of(address: str, allowed: Sequence[str]) -> frozenset[str]:
    """Return the allowed host names of a server that listens on `address`: its own, the loopback's, and `allowed`."""
    own = [] if address in ("0.0.0.0", "::", "") else [address]
    return frozenset(name.lower() for name in (*LOOPBACK, *own, *allowed))


def only(headers: Headers, name: bytes) -> str | None:
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
