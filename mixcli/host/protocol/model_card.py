"""What /v1/models tells of a model, as OpenAI, vLLM (max_model_len), Mistral (type, capabilities) and Anthropic (display_name) write it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mixcli.host.protocol.messages import Fields


def model_card(name: str, created: int, n_ctx: int) -> Fields:
    """Return the card of a model; `created` is in seconds since 1970."""
    return {
        "id": name,
        "object": "model",
        "type": "base",  # mistralai's client reads no card without it
        "created": created,
        "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "display_name": name,
        "owned_by": "local",
        "max_model_len": n_ctx,
        "max_context_length": n_ctx,
    }


def model_list(cards: Sequence[Fields]) -> Fields:
    """Return the list of all models, on one page."""
    ids = [card["id"] for card in cards]
    page = {"first_id": ids[0], "last_id": ids[-1], "has_more": False} if ids else {"has_more": False}
    return {"object": "list", "data": list(cards), **page}


__all__ = ["model_card", "model_list"]
