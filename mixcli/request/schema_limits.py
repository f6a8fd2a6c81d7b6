"""What the JSON schema of a tool may be: how deep, how large, and JSON, for the terminal, which reads tools, and for the host, which takes them."""

import json

from mixcli.system.strict_json import containers

# containers in containers; each object within an object's properties is two. llguidance reads JSON of at most 128, its own around a schema
# included; up to there the time is linear (32 objects in one another: 5 ms)
MAX_DEPTH = 64
MAX_TOOL_BYTES = 1 << 18  # of one tool's schema: a model reads all of it with every prompt


def fault_of_tool(schema: object) -> str:
    """Return what is wrong with the schema of a tool, whatever it says; empty where nothing is."""
    if any(depth > MAX_DEPTH for _, depth in containers(schema)):
        return f"the JSON schema is more than {MAX_DEPTH} levels deep; simplify it"
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return "the JSON schema has NaN or infinity, which is not valid JSON; write a number"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "the JSON schema contains a lone surrogate (\\ud800 to \\udfff); write whole characters"
    if size > MAX_TOOL_BYTES:
        return f"the JSON schema is {size:,} bytes long; the limit is {MAX_TOOL_BYTES:,}"
    return ""


__all__ = ["MAX_DEPTH", "MAX_TOOL_BYTES", "containers", "fault_of_tool"]
