"""Which references inside a schema have an end, and what stands beside one that leads back to itself."""

from typing import Any

import pytest

from mixcli.engine.schema_references import endless_reference, target_of, without_repeated_type

A: dict[str, Any] = {"$ref": "#/$defs/A"}
B: dict[str, Any] = {"$ref": "#/$defs/B"}


def root(a: object, b: object = True) -> dict[str, Any]:
    return {"$ref": "#/$defs/A", "$defs": {"A": a, "B": b}}


def needs(schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "endless"),
    [
        (root(A), True),
        (root(B, A), True),
        (root(needs(A)), True),
        (root(needs(B), needs(A)), True),
        (root({"anyOf": [A, needs(A)]}), True),
        (root({"allOf": [{"type": "object"}, A]}), True),
        (root({"type": "array", "items": A, "minItems": 1}), True),
        (root({"type": "array", "prefixItems": [{}, A], "minItems": 2}), True),
        (root({"type": "object", "properties": {"x": A}}), False),
        (root({"anyOf": [{"type": "null"}, needs(A)]}), False),
        (root({"oneOf": [needs(B), needs(A)]}, {"type": "integer"}), False),
        (root(needs(B), {"anyOf": [A, {"type": "null"}]}), False),
        (root({"type": "array", "items": A}), False),
        (root({"type": "array", "prefixItems": [{}, A], "minItems": 1}), False),
        (root({**needs(A), "type": ["object", "null"]}), False),
        (root({"enum": [A]}), False),
        # below unknown names nothing was checked
        (
            {"$ref": "#/x", "x": {"type": "object", "allOf": 3, "required": [[]], "properties": {"": A}}},
            False,
        ),
        ({"$ref": "#/x", "x": {"type": "array", "minItems": "2", "prefixItems": {}}}, False),
    ],
)
def test_a_schema_that_requires_itself_has_no_finite_answer(schema: dict[str, Any], endless: bool) -> None:
    assert bool(endless_reference(schema)) == endless


def test_long_chains_and_many_spellings_of_one_target_cost_little() -> None:
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)}
    assert endless_reference({"$ref": "#/$defs/d0", "$defs": {**chain, "d3000": {"$ref": "#/$defs/d0"}}})
    spelled = [{"$ref": "#/" + "".join(f"%{ord(c):02x}" if i >> n & 1 else c for n, c in enumerate("anyOfs"))} for i in range(64)]  # fmt: skip
    wide = {"type": "object", "anyOf": [{}] * 2000, "anyOfs": {"anyOf": spelled * 20}}
    assert not endless_reference(wide)


def test_targets_are_found_by_pointer() -> None:
    schema = {"$defs": {"a/b": {"allOf": [1, 2]}, "~": 3, "": 4}}
    assert target_of(schema, "#") is schema
    assert target_of(schema, "#/$defs/a~1b/allOf/1") == 2
    assert (target_of(schema, "#/%24defs/~0"), target_of(schema, "#/$defs/")) == (3, 4)
    for nowhere in ("#/$defs/a~1b/allOf/2", "#/none", "#anchor", "http://x/#/$defs/~0"):
        assert target_of(schema, nowhere) is True


def test_a_type_that_the_target_has_too_is_not_repeated() -> None:
    whole = root({"type": "object"})
    for repeated in ({"type": "object", **A}, {"type": "object", "allOf": [A]}):
        assert without_repeated_type(repeated, whole) == A
    others: list[dict[str, Any]] = [{"type": "array", **A}, {"type": "object", "allOf": [A, B]}, {"allOf": [True]}, {}]  # fmt: skip
    for other in others:
        assert without_repeated_type(other, whole) == other
