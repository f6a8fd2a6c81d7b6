"""Output that must be of a JSON schema: what the constraint costs of the decode time."""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.engine.client import ask_all
from bench.engine.scenario import Scenario
from bench.engine.servers import mixcli_host
from bench.engine.subject import Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_REQUESTS, N_TOKENS = 4, 160
PLACEMENT = placement(4096, 4, flash_attn=False)
PROMPT = "Invent a person who works in a harbour and describe them as a record with the fields of a form."
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 20},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "trade": {"enum": ["pilot", "welder", "cook", "clerk"]},
        "languages": {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 4},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "minLength": 20},
                "city": {"type": "string", "minLength": 10},
            },
            "required": ["street", "city"],
            "additionalProperties": False,
        },
        "notes": {"type": "string", "minLength": 400},
    },
    "required": ["name", "age", "trade", "languages", "address", "notes"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}


def sides(setting: Setting) -> Sequence[Side]:
    """Both kinds are asked of one host, which pass by pair take turns as sides do."""
    orders = cycle([("free", "constrained"), ("constrained", "free")])

    def run() -> Numbers:
        with mixcli_host(setting, PLACEMENT, setting.folder / "home") as socket:
            _milliseconds(socket, 1, {"response_format": FORMAT})  # warms up; the schema is compiled
            kinds = {"free": {"logit_bias": setting.subject.ends}, "constrained": {"response_format": FORMAT}}
            order = next(orders)
            found = {name: _milliseconds(socket, N_REQUESTS, kinds[name]) for name in order}
        return {name: found[name] for name in kinds}

    return (Side("mixcli", run),)


def _milliseconds(socket: Path, n_requests: int, extra: dict[str, Any]) -> float:
    """Ask one after the other; give the decode time of a token."""
    bodies = [
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": N_TOKENS,
            "seed": number,
            "park": False,
            **extra,
        }
        for number in range(n_requests)
    ]
    _, answers = ask_all(socket, bodies, 1)
    for choice in (answer["choices"][0] for answer in answers):
        if "response_format" in extra and choice["finish_reason"] == "stop":
            json.loads(choice["message"]["content"])
    timings = [answer["timings"] for answer in answers]
    milliseconds = sum(t["predicted_ms"] for t in timings)
    return float(milliseconds / sum(t["predicted_n"] - 1 for t in timings))


SCENARIO = Scenario(
    "schema",
    "Output of a JSON schema",
    sides,
    (
        Promise(
            "decode time of a token under a schema, in terms of free text",
            ("mixcli", "constrained"),
            ("mixcli", "free"),
            "at most",
            1.1,
        ),
    ),
)
