"""Prompt-lookup drafts: on a task that copies its prompt, and on free text, where they must switch themselves off."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.engine import texts
from bench.engine.client import stream
from bench.engine.scenario import Scenario
from bench.engine.servers import mixcli_host
from bench.engine.subject import Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_TOKENS = 192
PLACEMENT = placement(4096, 4, flash_attn=False)
COPY = f"Write this code once more, without a change:\n```\n{texts.TO_COPY}```"
FREE = "Tell a long story about a fox that wants to learn how clocks are made."


def sides(setting: Setting) -> Sequence[Side]:
    """With and without drafts in one host, so that the token ids can be compared; a random model has nothing that it copies."""
    tasks = {"copy": COPY, "free": FREE} if setting.subject.is_small else {"free": FREE}
    orders = cycle([(False, True), (True, False)])  # A B in one pass, B A in the next

    def run() -> Numbers:
        numbers: dict[str, float] = {}
        order = next(orders)
        with mixcli_host(setting, PLACEMENT, setting.folder / "home") as socket:
            _ask(socket, setting, "Hello", False)
            for task, prompt in tasks.items():
                answers = {drafts: _ask(socket, setting, prompt, drafts) for drafts in order}
                plain, drafted = answers[False], answers[True]
                numbers |= {
                    task: plain["timings"]["predicted_per_second"],
                    f"{task} with drafts": drafted["timings"]["predicted_per_second"],
                    f"{task} accepted": drafted["timings"].get("draft_n_accepted", 0),
                    f"{task} equal tokens": _n_equal(plain, drafted),
                }
        return numbers

    return (Side("mixcli", run),)


def _ask(socket: Path, setting: Setting, prompt: str, speculate: bool) -> Mapping[str, Any]:
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": N_TOKENS,
        "temperature": 0,
        "speculate": speculate,
        "return_token_ids": True,
        "park": False,
        "logit_bias": setting.subject.ends,
    }
    return stream(socket, body).last


def _n_equal(plain: Mapping[str, Any], drafted: Mapping[str, Any]) -> int:
    """Count the tokens before the first one that differs; logits of other batch shapes may break a tie otherwise."""
    pairs = zip(plain["token_ids"], drafted["token_ids"], strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(plain["token_ids"]))


SCENARIO = Scenario(
    "speculation",
    "Prompt-lookup drafts",
    sides,
    (
        Promise(
            "tokens a second of a copying task with drafts, in terms of without",
            ("mixcli", "copy with drafts"),
            ("mixcli", "copy"),
            "at least",
            1.3,
            ("demo",),
        ),
        Promise(
            "tokens a second of free text with drafts, in terms of without",
            ("mixcli", "free with drafts"),
            ("mixcli", "free"),
            "at least",
            0.95,
        ),
    ),
)
