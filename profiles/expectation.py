"""The bytes that a plan expects on each device, as plain numbers that travel with a placement."""

from collections.abc import Sequence

from profiles.ledger import Account


def expectation(ledger: Sequence[Account]) -> dict[str, dict[str, int]]:
    """Return bytes of weights, kv and compute (with staging) by device; the host is "host"."""
    return {
        account.device: {
            "weights": account.weights,
            "kv": account.kv,
            "compute": account.compute + account.staging,
        }
        for account in ledger
    }
