"""The error of a node that cannot load the model, on its way through Ray Serve, which keeps only the text of a traceback."""

import json
from typing import Self

from mixcli.errors import MixcliError
from mixcli.host.protocol.errors import ErrorBody, error_body, error_in

MARK = "mixcli-error "  # before the JSON of the error


class LoadRefused(Exception):
    """A replica cannot load the model of its node; the message has the error as a host would send it."""

    @classmethod
    def of(cls, error: MixcliError) -> Self:
        return cls(MARK + json.dumps(error_body(error)[1].to_json()))


def refused_load(message: str) -> ErrorBody | None:
    """Return the error of a replica that did not start, from what Ray Serve says; None where it says nothing of that kind."""
    _, mark, rest = message.rpartition(MARK)
    if not mark:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    return error_in(value)
