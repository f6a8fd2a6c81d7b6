"""References inside a JSON schema: where they lead, and whether a schema can be satisfied although it refers to itself."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MAX_ROUNDS = 8  # over all targets; one is enough for any chain, more only where loops lie in loops


def target_of(root: object, reference: str) -> object:
    """Return what a reference such as #/$defs/A leads to; True, which allows everything, where it cannot be followed here."""
    if reference != "#" and not reference.startswith("#/"):
        return True  # an $anchor, or an address
    node = root
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdecimal() and int(name[:9]) < len(node):
            node = node[int(name[:9])]
        else:
            return True
    return node


def without_repeated_type(schema: object, root: object) -> object:
    """Return a schema without a `type` beside $ref that its target has too.

    llguidance joins a reference with what stands beside it, which it cannot do where the target contains that reference.
    """
    match schema:
        case {"$ref": str(reference), "type": kind, **others}:
            target = target_of(root, reference)
            is_repeated = isinstance(target, dict) and target.get("type") == kind
            return {"$ref": reference, **others} if is_repeated else schema
        case {"allOf": [{"$ref": str(reference), **beside}], **others} if not beside and "$ref" not in others:
            return without_repeated_type({"$ref": reference, **others}, root)
        case _:
            return schema


def endless_reference(root: object) -> str:
    """Return a reference whose target requires itself without an end, so that no finite JSON satisfies the schema; empty where there is none.

    It is the least fixed point over the targets of references: one is finite when all that it requires is.
    """
    targets = _targets(root)
    known = _Finite(root)
    for _ in range(MAX_ROUNDS):
        n_before = len(known.finite)
        unknown = [one for one, schema in targets.items() if not known.has(schema)]
        if known.has(root) or not unknown:
            return ""
        if len(known.finite) == n_before:
            return unknown[0]
    return ""


def _targets(root: object) -> dict[str, object]:
    """Return the targets of all references that can be reached, those first that others lead to."""
    found: dict[str, object] = {}
    seen = {id(root)}
    todo: list[tuple[str, object, Iterator[str]]] = [("", root, _references(root))]
    while todo:
        name, schema, names = todo[-1]
        for follow in names:
            target = target_of(root, follow)
            if id(target) not in seen:
                seen.add(id(target))
                todo.append((follow, target, _references(target)))
                break
        else:
            todo.pop()
            found[name or "#"] = schema
    return found


def _references(schema: object) -> Iterator[str]:
    """Yield the references that stand anywhere in a schema."""
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                yield reference
            todo += node.values()
        elif isinstance(node, list):
            todo += node


class _Finite:
    """The parts of a schema, by their identity, that a finite value is known to satisfy."""

    def __init__(self, root: object) -> None:
        self._root = root
        self.finite: set[int] = set()

    def has(self, schema: object) -> bool:
        """Return whether a finite value satisfies a schema, as far as what is known about the targets of references tells."""
        if not isinstance(schema, dict) or id(schema) in self.finite:
            return True
        if is_finite := self._is_finite(schema):
            self.finite.add(id(schema))
        return is_finite

    def _is_finite(self, schema: dict[str, Any]) -> bool:
        if "const" in schema or "enum" in schema:
            return True
        if isinstance(reference := schema.get("$ref"), str):
            target = target_of(self._root, reference)
            if isinstance(target, dict) and id(target) not in self.finite:
                return False
        if not all(map(self.has, _list(schema, "allOf"))):
            return False
        for key in ("anyOf", "oneOf"):
            if (branches := _list(schema, key)) and not any(map(self.has, branches)):
                return False
        return all(map(self.has, _required(schema)))


def _list(schema: dict[str, Any], key: str) -> list[object]:
    """Return a list of schemas; what stands below unknown names was not checked."""
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _required(schema: dict[str, Any]) -> Iterator[object]:
    """Yield the schemas of what every value of a schema contains."""
    properties, least = schema.get("properties"), schema.get("minItems")
    match schema.get("type"):
        case "object" | ["object"] if isinstance(properties, dict):
            yield from (
                properties[name]
                for name in _list(schema, "required")
                if isinstance(name, str) and name in properties
            )
        case "array" | ["array"] if isinstance(least, int) and least > 0:
            first = _list(schema, "prefixItems")[:least]
            yield from first
            if len(first) < least:
                yield schema.get("items", True)


__all__ = ["endless_reference", "target_of", "without_repeated_type"]
