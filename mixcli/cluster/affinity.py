"""Which requests belong to one conversation: those that begin alike, whose beginning a replica has in its KV cache."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence

from mixcli.host.protocol.paths import CHAT, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES
from mixcli.serve.model_field import LARGE

HEAD = 4096  # bytes of a large body, or characters of a prompt, that tell conversations apart
CONVERSATIONS = (CHAT, MESSAGES, COUNT_TOKENS, RESPONSES)


async def conversation(path: str, body: bytes) -> str:
    """Return a key that the requests of a conversation share; empty where a request belongs to none.

    It is the hash of what a conversation begins with: instructions up to the first message of its user. Of a body that takes long to parse it
    is that of its first bytes.
    """
    if path not in (*CONVERSATIONS, COMPLETIONS):
        return ""
    if len(body) > LARGE:
        return await asyncio.to_thread(_hash, body[:HEAD])
    beginning = _beginning(path, body)
    return "" if beginning is None else _hash(json.dumps(beginning, sort_keys=True).encode())


def owner(key: str, replicas: Sequence[str]) -> int:
    """Return the number of the replica that a conversation belongs to; `replicas` are ids, in any order."""
    weights = [hashlib.sha256(f"{key} {replica}".encode()).digest() for replica in replicas]
    return weights.index(max(weights))


def _hash(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _beginning(path: str, body: bytes) -> object:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    if path == COMPLETIONS:
        return _head(fields.get("prompt"))
    said = fields.get("input" if path == RESPONSES else "messages")
    if isinstance(said, list):
        said = said[: 1 + next((n for n, one in enumerate(said) if _is_users(one)), len(said))]
    return [fields.get("instructions"), fields.get("system"), said]


def _head(prompt: object) -> object:
    if isinstance(prompt, str | list):
        return prompt[:HEAD]
    return prompt


def _is_users(message: object) -> bool:
    return isinstance(message, Mapping) and message.get("role") == "user"
