"""The words of JSON for what Python and pydantic say of values in their own: an object, not a dict."""

import re
from collections.abc import Mapping

KINDS = {
    "NoneType": "null",
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
}
_NAMED = rf"""(['"])({"|".join(KINDS)})( object)?\1( object\b)?"""
_OBJECTS = ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type")


def json_kind(value: object) -> str:
    """Return what kind of JSON a value is."""
    return KINDS.get(type(value).__name__, "not JSON")


def plain(text: str) -> str:
    """Return a message of Python or Jinja with the kinds of JSON for the names of Python's types."""
    return re.sub(_NAMED, lambda match: KINDS[match[2]], text)


def validation_text(fault: Mapping[str, object]) -> str:
    """Return what one of the faults of a pydantic ValidationError says."""
    if fault["type"] in _OBJECTS:
        return "Input should be an object"
    return plain(str(fault["msg"]).removeprefix("Value error, "))


__all__ = ["json_kind", "plain", "validation_text"]
