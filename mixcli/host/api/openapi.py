"""The OpenAPI document: what each route reads, taken from the classes that read it."""

from typing import Any

from pydantic import BaseModel

from mixcli.host.api.events import JsonObject


def body_of(cls: type[BaseModel]) -> JsonObject:
    """Return what a route has to say of its body, for `openapi_extra`; definitions stand inside the schema."""
    schema = cls.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without references: none of ours refers to itself."""
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(one) for one in node] if isinstance(node, list) else node

    whole: dict[str, Any] = resolved(schema)
    return whole
