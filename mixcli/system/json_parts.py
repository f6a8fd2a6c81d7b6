"""How much memory JSON may take once it is parsed: of objects, lists and texts of three bytes each, Python makes thirty times as many."""

COUNTED = 1 << 20  # bytes from which on they are counted
MAX_PARTS = 1 << 21  # objects, lists and texts of a request


def n_parts(raw: bytes) -> int:
    """Return how many objects, lists and texts JSON has, or more, where their signs stand in texts; 0 for one that is too short for many."""
    if len(raw) < COUNTED:
        return 0
    return raw.count(b"{") + raw.count(b"[") + raw.count(b'"') // 2


def fault_of(raw: bytes, what: str) -> str:
    """Return what is wrong with a request, or with the part of it that is called so, which would fill the memory; empty where nothing is."""
    n = n_parts(raw)
    return (
        f"{what} has {n:,} objects, lists and texts; the limit is {MAX_PARTS:,}; shorten it"
        if n > MAX_PARTS
        else ""
    )


__all__ = ["MAX_PARTS", "fault_of", "n_parts"]
