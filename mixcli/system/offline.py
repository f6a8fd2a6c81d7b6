"""Whether the network may be used: MIXCLI_OFFLINE, and HF_HUB_OFFLINE of Hugging Face's programs, hold for every command."""

import os

from mixcli.errors import UsageError

VARIABLES = ("MIXCLI_OFFLINE", "HF_HUB_OFFLINE")
ON, OFF = ("1", "on", "yes", "true", "t", "y"), ("", "0", "off", "no", "false", "f", "n")


def offline_variable() -> str:
    """Return the variable that forbids the network, empty where none does; UsageError for a MIXCLI_OFFLINE that is not a boolean."""
    own, others = VARIABLES
    value = os.environ.get(own, "").strip()
    if value.lower() not in (*ON, *OFF):
        raise UsageError(f"{own}: {value!r} is not a valid boolean; use 1 or 0")
    return next((name for name in (own, others) if os.environ.get(name, "").strip().lower() in ON), "")


def is_offline() -> bool:
    """Return whether a variable forbids the network; errors as in `offline_variable`."""
    return bool(offline_variable())


__all__ = ["is_offline", "offline_variable"]
