"""llama_cpp.Llama, the bindings' high-level class, as its documentation uses it: in a process of its own, an order on stdin."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.engine.subject import N_BATCH, N_THREADS, N_UBATCH


def ask(path: Path, order: Mapping[str, Any]) -> dict[str, float]:
    """Run one order ("decode" or "classify" below) in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.engine.bindings"],
        input=json.dumps({"path": str(path), **order}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"llama_cpp.Llama ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    numbers: dict[str, float] = json.loads(done.stdout)
    return numbers


def main() -> None:
    """Read the order, write the numbers."""
    from llama_cpp import Llama

    order = json.loads(sys.stdin.read())
    llm = Llama(
        order["path"],
        n_ctx=4096,
        n_batch=N_BATCH,
        n_ubatch=N_UBATCH,
        n_threads=N_THREADS,
        n_threads_batch=N_THREADS,
        flash_attn=True,
        verbose=False,
    )
    numbers = decode(llm, **order["decode"]) if "decode" in order else classify(llm, **order["classify"])
    sys.stdout.write(json.dumps(numbers))


def decode(llm: Any, prompt: list[int], n_tokens: int, n_runs: int) -> dict[str, float]:
    """Stream completions with its default sampling; tokens a second from the first piece of text to the last."""
    n_decoded, seconds = 0, 0.0
    for seed in range(n_runs + 1):
        llm.reset()
        first = last = 0.0
        for _ in llm.create_completion(prompt, max_tokens=n_tokens, stream=True, seed=seed):
            last = perf_counter()
            first = first or last
        if seed:  # the first one warms up
            n_decoded += llm.n_tokens - len(prompt)
            seconds += last - first
    return {"decode": n_decoded / seconds}


def classify(llm: Any, prompts: list[str], labels: list[str]) -> dict[str, float]:
    """Ask one text after the other for one of the labels; what the labels' probabilities are it does not say."""
    from llama_cpp import LlamaGrammar

    grammar = LlamaGrammar.from_string("root ::= " + " | ".join(json.dumps(label) for label in labels), False)
    started = 0.0
    for number, prompt in enumerate(prompts):
        if number == 1:  # the first one warms up
            started = perf_counter()
        messages = [{"role": "user", "content": prompt}]
        answer = llm.create_chat_completion(messages, grammar=grammar, max_tokens=8, temperature=0)
        if (label := answer["choices"][0]["message"]["content"].strip()) not in labels:
            raise SystemExit(f"llama_cpp.Llama answered {label!r}, which is no label.")
    return {"texts": (len(prompts) - 1) / (perf_counter() - started)}


if __name__ == "__main__":
    main()
