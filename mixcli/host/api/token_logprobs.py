"""Log-probabilities of tokens as OpenAI's chat completions and Responses have them."""

from collections.abc import Callable, Sequence

from mixcli.engine.logprobs import TokenLogprobs
from mixcli.host.api.events import JsonObject

Pieces = Callable[[Sequence[int]], list[bytes]]  # the bytes of tokens


def token_logprobs(pieces: Pieces, chosen: Sequence[TokenLogprobs]) -> list[JsonObject]:
    """Return each chosen token with the most likely ones in its place."""
    return [
        {
            **_logprob(pieces, one.token, one.logprob),
            "top_logprobs": [_logprob(pieces, token, logprob) for token, logprob in one.top],
        }
        for one in chosen
    ]


def _logprob(pieces: Pieces, token: int, logprob: float) -> JsonObject:
    (piece,) = pieces([token])
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
