"""Sorting short texts: 200 shared tokens of instruction, five labels with their probabilities, against llama-server at its best and llama_cpp.Llama."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from bench.engine import bindings, texts
from bench.engine.client import ask_all
from bench.engine.scenario import Scenario
from bench.engine.servers import llama_server, mixcli_host
from bench.engine.subject import N_SEQ, Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side, best

SLOTS = (1, 4, 8, 16)
N_CTX_SLOT = 512
N_IN_FLIGHT = 32  # of our side; llama-server gets as many as it has slots
GRAMMAR = "root ::= " + " | ".join(json.dumps(label) for label in texts.LABELS)


def sides(setting: Setting) -> Sequence[Side]:
    """Find the best setting of llama-server, and whether our side repacks, with fewer texts; then let these take turns."""
    subject = setting.subject
    n_texts, n_loop, n_look = (128, 16, 48) if subject.is_small else (64, 6, 16)

    def server(n_slots: int, repack: bool, n: int) -> Callable[[], Numbers]:
        def run() -> Numbers:
            options = [] if repack else ["--no-repack"]
            with llama_server(setting, n_slots, N_CTX_SLOT, options) as socket:
                return _sort(socket, n, n_slots, _SERVER, _probabilities_of_server)

        return run

    def ours(repack: bool, n: int) -> Callable[[], Numbers]:
        def run() -> Numbers:
            with mixcli_host(
                setting, placement(4096, N_SEQ, repack=repack), setting.folder / "home"
            ) as socket:
                return _sort(socket, n, N_IN_FLIGHT, _OURS, _probabilities_of_ours)

        return run

    names = {True: "repacked", False: "not repacked"}
    looks = {
        f"llama-server, {n_slots} slots, {names[repack]}": (n_slots, repack)
        for n_slots, repack in product(SLOTS, names)
    }
    look = [Side(name, server(*how, max(n_look, 2 * how[0]))) for name, how in looks.items()]
    found = best(look, "texts").name
    own = best([Side(f"mixcli, {names[repack]}", ours(repack, 2 * N_IN_FLIGHT)) for repack in names], "texts")
    loop = {"classify": {"prompts": _prompts(n_loop + 1), "labels": texts.LABELS}}
    return (
        Side("mixcli", ours(own.name.endswith(", repacked"), n_texts)),
        Side("llama-server", server(*looks[found], n_texts)),
        Side("llama_cpp.Llama", lambda: bindings.ask(subject.path, loop)),
    )


_OURS = {"structured_outputs": {"choice": list(texts.LABELS)}, "park": False}
_SERVER = {
    "grammar": GRAMMAR,
    "cache_prompt": True,
    "max_tokens": 8,
    "temperature": 0,
    "logprobs": True,
    "top_logprobs": len(texts.LABELS),
}


def _prompts(n: int) -> list[str]:
    return [texts.INSTRUCTION + message for message in texts.messages(n)]


def _sort(
    socket: Path,
    n_texts: int,
    n_at_once: int,
    extra: dict[str, Any],
    probabilities: Callable[[dict[str, Any]], int],
) -> Numbers:
    bodies = [{"messages": [{"role": "user", "content": prompt}], **extra} for prompt in _prompts(n_texts)]
    ask_all(socket, bodies[-n_at_once:], n_at_once)  # warms up, and puts the instruction into every slot
    seconds, answers = ask_all(socket, bodies, n_at_once)
    for choice in (answer["choices"][0] for answer in answers):
        if choice["message"]["content"].strip() not in texts.LABELS or not probabilities(choice):
            raise SystemExit(f"this is no label with its probabilities: {json.dumps(choice)[:500]}")
    return {"texts": n_texts / seconds}


def _probabilities_of_ours(choice: dict[str, Any]) -> int:
    return len(choice["label_probs"]) if abs(sum(choice["label_probs"].values()) - 1) < 1e-3 else 0


def _probabilities_of_server(choice: dict[str, Any]) -> int:
    """llama-server gives the likeliest tokens at each place; what labels they begin is left to the reader."""
    return len(choice["logprobs"]["content"][0]["top_logprobs"])


def _promise(limit: float, model: str) -> Promise:
    what = "texts a second, in terms of llama-server at its best"
    return Promise(what, ("mixcli", "texts"), ("llama-server", "texts"), "at least", limit, (model,))


SCENARIO = Scenario(
    "classify",
    "Sorting short texts",
    sides,
    (
        _promise(1.8, "demo"),
        _promise(3.5, "true-shape"),
        Promise(
            "texts a second, in terms of a loop over llama_cpp.Llama",
            ("mixcli", "texts"),
            ("llama_cpp.Llama", "texts"),
            "at least",
            5.0,
        ),
    ),
)
