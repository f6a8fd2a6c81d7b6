"""Many at once: 16 generations of 64 tokens from 20-token prompts, against llama-batched-bench and llama-server."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engine import texts
from bench.engine.client import ask_all
from bench.engine.ours import Load, measure
from bench.engine.programs import llama_batched_bench
from bench.engine.scenario import Scenario
from bench.engine.servers import llama_server, mixcli_host
from bench.engine.subject import N_SEQ, Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side, best

N_PROMPT, N_TOKENS, N_AT_ONCE = 20, 64, 16
N_CTX_SLOT = 256


def sides(setting: Setting) -> Sequence[Side]:
    """Choose repacking for all by what llama-batched-bench likes better."""
    subject = setting.subject

    def batched(repack: bool) -> Callable[[], Numbers]:
        return lambda: llama_batched_bench(setting, N_PROMPT, N_TOKENS, N_AT_ONCE, 1, repack=repack)

    choice = best([Side(name, batched(name == "repacked")) for name in ("repacked", "not repacked")], "total")
    repack = choice.name == "repacked"
    ours = placement(N_SEQ * N_CTX_SLOT // 4, N_SEQ, repack=repack)

    def engine() -> Numbers:
        (tally,) = measure(subject.path, ours, [Load(N_AT_ONCE, N_PROMPT, N_TOKENS, N_AT_ONCE)])
        return {"total": tally.total_rate}

    def host() -> Numbers:
        with mixcli_host(setting, ours, setting.folder / "home") as socket:
            return _load(socket, {"logit_bias": subject.ends, "park": False})

    def server() -> Numbers:
        options = [] if repack else ["--no-repack"]
        with llama_server(setting, N_AT_ONCE, N_CTX_SLOT, options) as socket:
            return _load(socket, {"ignore_eos": True})

    return (
        Side("mixcli", engine),
        Side("llama-batched-bench", batched(repack)),
        Side("mixcli over HTTP", host),
        Side("llama-server", server),
    )


def _load(socket: Path, extra: dict[str, Any]) -> Numbers:
    def body(number: int, n_tokens: int) -> dict[str, Any]:
        turns = [{"role": "system", "content": "Go."}, {"role": "user", "content": texts.opening(number)}]
        return {"messages": turns, "max_tokens": n_tokens, "temperature": 0.8, "seed": number, **extra}

    ask_all(socket, [body(100 + number, 4) for number in range(N_AT_ONCE)], N_AT_ONCE)
    seconds, answers = ask_all(socket, [body(n, N_TOKENS) for n in range(N_AT_ONCE)], N_AT_ONCE)
    usages = [answer["usage"] for answer in answers]
    if {usage["completion_tokens"] for usage in usages} != {N_TOKENS}:
        raise SystemExit(f"an answer ended before its {N_TOKENS} tokens")
    total = sum(usage["total_tokens"] for usage in usages)
    return {"total": total / seconds, "prompt tokens": total / N_AT_ONCE - N_TOKENS}


SCENARIO = Scenario(
    "batch",
    "16 at a time",
    sides,
    (
        Promise(
            "tokens a second, in terms of llama-batched-bench",
            ("mixcli", "total"),
            ("llama-batched-bench", "total"),
            "at least",
            0.95,
        ),
        Promise(
            "tokens a second over HTTP, in terms of llama-server with 16 slots",
            ("mixcli over HTTP", "total"),
            ("llama-server", "total"),
            "at least",
            1.05,
        ),
    ),
)
