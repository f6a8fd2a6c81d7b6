"""What one client, and all clients together, may use of the server at a time."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mixcli.host.protocol.body_limits import MAX_HELD
from mixcli.serve.refusal import Refusal, unavailable


@dataclass
class Limits:
    """Counts running requests by client, `max_concurrency` of each (None: any number), and the bytes of their bodies."""

    max_concurrency: int | None = None
    max_held: int = MAX_HELD
    _running: Counter[bytes] = field(default_factory=Counter)
    n_held: int = 0

    def crowded(self, client: bytes) -> Refusal | None:
        """Return the refusal of one more request of a client; None where it may run."""
        limit = self.max_concurrency
        if limit is None or self._running[client] < limit:
            return None
        return Refusal(
            429,
            "rate_limit_error",
            f"{limit} requests with this API key are running already, which is the limit; retry when one has finished",
            "rate_limit_exceeded",
            retry_after=1,
        )

    @contextlib.contextmanager
    def running(self, client: bytes) -> Iterator["Held"]:
        """Count a request until it is answered."""
        self._running[client] += 1
        held = Held(self)
        try:
            yield held
        finally:
            held.release()
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]


@dataclass
class Held:
    """The bytes that one request holds."""

    limits: Limits
    n_bytes: int = 0

    def add(self, n_bytes: int) -> Refusal | None:
        """Count more bytes; return the refusal where all requests together hold too many."""
        self.n_bytes += n_bytes
        self.limits.n_held += n_bytes
        if self.limits.n_held <= self.limits.max_held:
            return None
        return unavailable(
            f"the running requests hold {self.limits.n_held:,} bytes; the limit is {self.limits.max_held:,}; "
            "retry in a few seconds",
            retry_after=2,
        )

    def release(self) -> None:
        """Subtract them."""
        self.limits.n_held -= self.n_bytes
        self.n_bytes = 0
