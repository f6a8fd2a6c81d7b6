"""Validate a constraint before it is compiled: JSON schema, any JSON object, regex or grammar.

Schemas and grammars come from clients and can be made expensive (deep nesting, huge counts, references to other hosts), so their size is limited here (schemas: json_schema.py); their cost beyond that is limited in constraint.py. Nothing is ever fetched.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

from mixcli.engine.json_schema import MAX_COUNT, MAX_DEPTH, Unenforceable, check_repeats, prepared
from mixcli.engine.schema_references import endless_reference
from mixcli.errors import BadRequest
from mixcli.request.sampling_table import shown

Kind = Literal["json_schema", "json_object", "regex", "grammar", "answer"]
_ASKED = (
    "json_schema",
    "json_object",
    "regex",
    "grammar",
)  # what requests may ask for; answer_grammar.py makes the other

MAX_BYTES = 1 << 16
GUIDANCE = "x-guidance"  # llguidance's settings in a schema; those of others are left out
LOOSE = {"coerce_one_of": True, "lenient": True}


@dataclass(frozen=True)
class ConstraintSpec:
    """A checked constraint, usable as a key: `text` is a schema's JSON (its order kept), a regex, a grammar, or empty; of a
    whole answer with tool calls the JSON of a Lark grammar and of the schemas in it.

    `param` is the request's field that it came from, for errors.
    """

    kind: Kind
    text: str = ""
    param: str = field(default="structured_outputs", compare=False)

    @classmethod
    def of(
        cls, kind: Kind, value: object = "", *, param: str = "structured_outputs", loose: bool = False
    ) -> "ConstraintSpec":
        """Check a constraint: a schema is what JSON parsed to (an object or a bool), the others are texts.

        Of a `loose` schema what cannot be enforced is left out, and oneOf is read as anyOf.

        Raises BadRequest that names `param`.
        """
        if kind not in _ASKED:
            raise BadRequest(f"{kind!r:.40} is not one of {', '.join(_ASKED)}", param=param)
        if kind == "json_object":
            return cls(kind, "", param)
        name = kind.replace("_", " ")
        text = _schema_text(value, param, loose=loose) if kind == "json_schema" else _text(value, name, param)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadRequest(f"the {name} contains a lone surrogate", param=param) from None
        if size > MAX_BYTES:
            raise Unenforceable(f"the {name} is {size:,} bytes long; the limit is {MAX_BYTES:,}", param=param)
        if kind != "json_schema":
            check_repeats(text, name, param)
        return cls(kind, text, param)


def _text(value: object, name: str, param: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"the {name} must be non-empty text, not {shown(value)}", param=param)
    if "\0" in value:
        raise BadRequest(f"the {name} contains a NUL character; write it as an escape", param=param)
    return value


def _schema_text(schema: object, param: str, *, loose: bool) -> str:
    if not isinstance(schema, dict | bool):
        raise BadRequest(f"a JSON schema must be an object, not {shown(schema)}", param=param)
    try:
        made = prepared(schema, param, loose=loose)
        if loose and isinstance(made, dict):
            made = {**made, GUIDANCE: LOOSE}
        text = json.dumps(made, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the JSON schema is not JSON: {error}", param=param) from None
    if len(text) <= MAX_BYTES and (reference := endless_reference(made)):
        raise BadRequest(
            f"the JSON schema allows no answer: {reference:.80} requires itself endlessly; make one of the properties in the cycle optional",
            param=param,
        )
    return text


__all__ = ["GUIDANCE", "MAX_BYTES", "MAX_COUNT", "MAX_DEPTH", "ConstraintSpec", "Kind"]
