"""The one table of routes that a host has and `serve` opens on a port, and the states of a model."""

from collections.abc import Iterator
from typing import NamedTuple

V1 = "/v1"

HEALTH = "/health"  # state of the load, queue; answered before the model is loaded
METRICS = "/metrics"  # for Prometheus
OPENAPI = "/openapi.json"
DOCS = "/docs"  # the same, as a page
MODELS = "/v1/models"
MODEL = "/v1/models/{model}"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"  # Anthropic's
COUNT_TOKENS = "/v1/messages/count_tokens"
EMBEDDINGS = "/v1/embeddings"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
APPLY_TEMPLATE = "/apply-template"

ATTACH = "/mixcli/attach"  # SSE: the host's state until the client leaves; the model stays loaded meanwhile
EXPERTS = "/mixcli/experts"  # how a conversation's last answer was routed over the experts

LOADING, READY, FAILED = "loading", "ready", "failed"


class Route(NamedTuple):
    """A path, in the host's spelling, and its method; {model} at the end is the id of a model, which may have slashes.

    Only a public one is opened on a port, and only what says nothing of the model or its users needs no key. What is GET never loads
    a model.
    """

    path: str
    method: str
    is_public: bool = True
    needs_key: bool = True

    @property
    def loads_model(self) -> bool:
        return self.method == "POST"

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that the port answers: HEAD comes with GET, OPTIONS with all."""
        return (*(("GET", "HEAD") if self.method == "GET" else (self.method,)), "OPTIONS")

    @property
    def prefix(self) -> str | None:
        """Return what stands before the parameter; None for a path without one."""
        head, brace, _ = self.path.partition("{")
        return head if brace else None

    def covers(self, path: str) -> bool:
        """Return whether a path in the host's spelling is this route's."""
        if self.prefix is None:
            return path == self.path
        return path.startswith(self.prefix) and len(path) > len(self.prefix)


ROUTES = (
    Route(CHAT, "POST"),
    Route(COMPLETIONS, "POST"),
    Route(RESPONSES, "POST"),
    Route(MESSAGES, "POST"),
    Route(COUNT_TOKENS, "POST"),
    Route(EMBEDDINGS, "POST"),
    Route(MODELS, "GET"),
    Route(MODEL, "GET"),
    Route(TOKENIZE, "POST"),
    Route(DETOKENIZE, "POST"),
    Route(APPLY_TEMPLATE, "POST"),
    Route(HEALTH, "GET", needs_key=False),
    Route(METRICS, "GET"),
    Route(DOCS, "GET", needs_key=False),
    Route(OPENAPI, "GET", needs_key=False),
    Route(ATTACH, "GET", is_public=False),
    Route(EXPERTS, "POST", is_public=False),
)


def find_route(path: str) -> tuple[Route, str] | None:
    """Return the public route that a client means, and the path in the host's spelling; None where there is none.

    One slash at the end and a /v1 may be left out, and be written where they are not needed.
    """
    if any(part in (".", "..") for part in path.split("/")):
        return None
    for spelling in _spellings(path):
        for route in ROUTES:
            if route.is_public and route.covers(spelling):
                return route, spelling
    return None


def _spellings(path: str) -> Iterator[str]:
    bare = path.removesuffix("/")
    yield bare
    yield V1 + bare
    if bare.startswith(V1 + "/"):
        yield bare.removeprefix(V1)


def public_paths() -> list[str]:
    """Return the paths that a port has, for messages and the docs."""
    return [route.path for route in ROUTES if route.is_public]
