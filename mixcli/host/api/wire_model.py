"""The base of all request models: strict types, no unknown fields, null as absent, and fields under the names that a client sent."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Strict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mixcli.errors import BadRequest
from mixcli.host.api.field_rules import FieldFault, FieldRule, Translated, translated


def _whole(value: object) -> object:
    """Take 3.0 for 3, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def not_empty(send: str) -> BeforeValidator:
    """Refuse an empty list; `send` is what belongs there."""

    def check(value: object) -> object:
        if value == []:
            raise PydanticCustomError("value_error", "it is empty; send {send}", {"send": send})
        return value

    return BeforeValidator(check)


Number = Annotated[float, Strict()]
Whole = Annotated[int, Strict(), BeforeValidator(_whole)]


def at_most(n: int) -> BeforeValidator:
    """Refuse an object of more fields before any is looked at: pydantic keeps a kilobyte for each value that is wrong."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > n:
            raise PydanticCustomError(
                "value_error",
                "it has {found} fields; the limit is {limit}",
                {"found": f"{len(value):,}", "limit": f"{n:,}"},
            )
        return value

    return BeforeValidator(check)


class WireModel(BaseModel):
    """A JSON object of a request.

    A bool is not a number, a text is not a bool: what has the wrong type is refused by its name. Numbers beyond JSON's are json_body.py's.
    A field that the class does not declare is translated, dropped or refused as `rules` have it. Lists and objects of values that are checked end
    at the first that is wrong, or have a limit that counts before: what pydantic keeps of millions of them would fill the memory.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    _sent: Mapping[str, str] = PrivateAttr(default_factory=dict)  # our name of a field -> the client's

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        """Return what becomes of fields that are not declared."""
        return {}

    @classmethod
    @cache
    def declared(cls) -> frozenset[str]:
        """Return the names of the declared fields on the wire."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def read_fields(cls, value: Mapping[str, object]) -> Translated:
        """Return an object with declared fields only; FieldFault for one that is refused or unknown."""
        if value.keys() <= cls.declared() and None not in value.values():  # as nearly all of many are
            return Translated(value)
        return translated(value, cls.rules(), cls.declared())

    @model_validator(mode="wrap")
    @classmethod
    def _translate(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        try:
            found = cls.read_fields(value)
        except FieldFault as fault:
            context = {"field": fault.name, "message": str(fault)}
            raise PydanticCustomError(fault.code, "{message}", context) from None
        made = handler(found.fields)
        if found.sent:
            made._sent = found.sent
        return made

    @contextlib.contextmanager
    def named_as_sent(self) -> Iterator[None]:
        """Name the field in a BadRequest as the client named it."""
        try:
            yield
        except BadRequest as error:
            raise as_sent(error, self._sent) from error.__cause__


def as_sent(error: BadRequest, sent: Mapping[str, str]) -> BadRequest:
    """Return an error with the field named as the client named it."""
    for ours, theirs in sent.items():
        if ours.startswith(f"{error.param}."):  # the object around it, which the client did not write
            return BadRequest(str(error).replace(error.param, theirs, 1), param=theirs, code=error.code)
        if error.param == ours or error.param.startswith(f"{ours}."):
            param = theirs + error.param[len(ours) :]
            return BadRequest(str(error).replace(error.param, param, 1), param=param, code=error.code)
    return error


def relocated(error: BadRequest, places: Mapping[str, str]) -> BadRequest:
    """Return an error whose field, or the longest part of its path that `places` has, is named as there."""
    parts = error.param.split(".")
    for n in range(len(parts), 0, -1):
        if theirs := places.get(".".join(parts[:n])):
            param = ".".join([theirs, *parts[n:]])
            return BadRequest(str(error).replace(error.param, param, 1), param=param, code=error.code)
    return error


__all__ = ["Number", "Whole", "WireModel", "as_sent", "at_most", "not_empty", "relocated"]
