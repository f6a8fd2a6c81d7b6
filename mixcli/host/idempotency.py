"""Keep recent answers by their Idempotency-Key, for clients that did not receive them.

A batch that is killed has requests in flight. Its next run asks them by the same names, and what was computed meanwhile is not computed again.

A name belongs to one client (the API key at the server's door) and one body. The rules are those of Stripe, which the header comes from:

- the same name with another body is refused, 409;
- the same name with the same body gets the same bytes, streams included, marked `Idempotent-Replayed: true`;
- while the first is still being computed, a second waits for it; where the first fails or its client leaves, the second computes.

Errors are not kept: the same request may be tried again.
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field

from mixcli.errors import BadRequest
from mixcli.host.protocol.messages import Fields

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
CLIENT = "X-Mixcli-Client"  # whom the server's door let in; only the proxy sets it
MAX_NAMES = 4096  # names whose bodies are remembered
MAX_BYTES = 16 << 20  # of all answers
MAX_REPLY = 1 << 20  # bytes of one answer; a longer one is computed again
MAX_KEY = 255  # characters

Name = tuple[str, str]  # client, key


class KeyReused(BadRequest):
    """A name came with another body: answering the first one would be wrong, the second one too."""

    status = 409
    code = "idempotency_key_reused"


@dataclass(frozen=True)
class Reply:
    """A finished answer as it went out."""

    body: bytes
    media_type: str


TOO_LONG = Reply(b"", "")  # was answered, but is not kept


@dataclass
class _Entry:
    digest: bytes
    reply: Reply | None = None
    running: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)


def digest(body: Fields) -> bytes:
    """Return the hash of a validated body: white space and the order of its fields do not count, that of a schema's properties does."""
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).digest()


def name_of(client: str, keys: list[str]) -> Name | None:
    """Return a request's name from its headers' values; None where it has none. BadRequest for a name that cannot be one."""
    if not keys:
        return None
    if len(keys) > 1:
        raise BadRequest(f"{HEADER} is given {len(keys)} times; send it once", param=HEADER)
    if not keys[0].strip():
        raise BadRequest(f"{HEADER} is empty; remove it or send a key", param=HEADER)
    if len(keys[0]) > MAX_KEY:
        raise BadRequest(
            f"{HEADER} is {len(keys[0]):,} characters long; the limit is {MAX_KEY}", param=HEADER
        )
    return client, keys[0]


class IdempotencyCache:
    """The last answers that have a name; the longest unused goes first. Belongs to the event loop's thread."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_names: int = MAX_NAMES) -> None:
        self._max_bytes, self._max_names = max_bytes, max_names
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()
        self.n_bytes = 0

    async def claim(self, name: Name, body: bytes) -> Reply | None:
        """Return the answer of that name, waiting for it while it is computed; None makes the caller compute it and call `finish`.

        `body` is the digest of the request. Raises KeyReused where the name belongs to another one.
        """
        while True:
            entry = self._entries.get(name)
            if entry is None:
                self._entries[name] = _Entry(body)
                self._shrink()
                return None
            if entry.digest != body:
                raise KeyReused(
                    f"this {HEADER} was used with another request body; send the same body or a new key",
                    param=HEADER,
                )
            self._entries.move_to_end(name)
            if entry.reply is not None:
                return entry.reply
            if not entry.running:
                entry.running, entry.ended = True, asyncio.Event()
                return None
            await entry.ended.wait()

    def finish(self, name: Name, reply: Reply | None) -> None:
        """Keep the answer computed for a name, unless it is very long; None for a failed or cancelled one."""
        entry = self._entries[name]  # a running one is never evicted
        entry.running = False
        if reply is None:
            del self._entries[name]
        elif reply is not TOO_LONG and len(reply.body) <= MAX_REPLY:
            entry.reply = reply
            self.n_bytes += len(reply.body)
        entry.ended.set()
        self._shrink()

    def _shrink(self) -> None:
        for name, entry in list(self._entries.items()):
            if self.n_bytes <= self._max_bytes and len(self._entries) <= self._max_names:
                return
            if not entry.running:
                self.n_bytes -= len(entry.reply.body) if entry.reply else 0
                del self._entries[name]


class Recording:
    """Collects a stream's bytes while they go out, up to what would be kept."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._n_bytes = 0

    def add(self, piece: bytes) -> None:
        """Take a piece; nothing is held any more once it is too much."""
        self._n_bytes += len(piece)
        if self._n_bytes <= MAX_REPLY:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def reply(self, media_type: str) -> Reply:
        """Return the whole, or TOO_LONG."""
        return Reply(b"".join(self._pieces), media_type) if self._n_bytes <= MAX_REPLY else TOO_LONG
