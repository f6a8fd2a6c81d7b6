"""Which web pages may use the server, and the CORS headers for their browsers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from mixcli.errors import UsageError
from mixcli.host.protocol.paths import Route
from mixcli.serve.refusal import Header

ANY = "*"
MAX_AGE = b"600"  # seconds that a browser may keep the answer to a preflight
READABLE = b"x-request-id, retry-after, idempotent-replayed"  # headers of an answer that a page may read
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


@dataclass(frozen=True)
class Cors:
    """Web pages by origin (scheme, host and port), as the user named them; ANY is all of them."""

    origins: frozenset[str] = frozenset()

    def allows(self, origin: str) -> bool:
        """Return whether the pages of an origin may use the server."""
        return ANY in self.origins or origin.lower() in self.origins

    def headers(self, origin: str | None) -> list[Header]:
        """Return the headers for any answer to a page; none for one that was not named, or for another program."""
        if not self.origins:
            return []
        vary = [(b"vary", b"Origin")]
        if origin is None or not self.allows(origin):
            return vary
        return [
            *vary,
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", READABLE),
        ]

    def preflight(self, origin: str | None, asked: str | None, route: Route) -> list[Header]:
        """Return the headers for OPTIONS: which methods a path has, and to a page that may use them which headers it may send."""
        methods = ", ".join(route.methods).encode()
        if origin is None or not self.allows(origin):
            return [(b"allow", methods), *self.headers(origin)]
        names = asked if asked and _NAMES.fullmatch(asked) else "authorization, content-type"
        return [
            (b"allow", methods),
            *self.headers(origin),
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", names.encode("latin-1")),
            (b"access-control-allow-private-network", b"true"),
            (b"access-control-max-age", MAX_AGE),
        ]


def cors_of(origins: Sequence[str], *, has_key: bool) -> Cors:
    """Return the rule for the origins that a user named; UsageError for what is not one."""
    for origin in origins:
        if origin == ANY:
            if not has_key:
                raise UsageError(
                    "--allow-origin '*' opens the server to every web page, so an API key is required; "
                    "set one, or pass the origins of the pages"
                )
        elif not _is_origin(origin):
            raise UsageError(
                f"invalid origin {origin!r}: use scheme and host, as in https://app.example or http://localhost:3000"
            )
    return Cors(frozenset(origin.lower() for origin in origins))


def _is_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        _ = parts.port  # checked when it is read
    except ValueError:
        return False
    return (
        bool(parts.scheme and parts.hostname) and origin.lower() == f"{parts.scheme}://{parts.netloc}".lower()
    )
