"""llama-bench and llama-batched-bench: run them, read the JSON that they print."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from bench.engine.subject import N_BATCH, N_THREADS, N_UBATCH, Setting, peer_options


def llama_bench(
    setting: Setting, n_prompt: int, n_tokens: int, n_runs: int, n_depth: int = 0
) -> dict[str, float]:
    """Return prefill and decode in tokens a second: means over `n_runs`, each behind `n_depth` tokens, nothing sampled; 0 is not run."""
    command = [str(setting.peers.bench), "-m", str(setting.subject.path), "-t", str(N_THREADS), "-fa", "on"]
    sizes = ["-b", str(N_BATCH), "-ub", str(N_UBATCH)]
    work = ["-p", str(n_prompt), "-n", str(n_tokens), "-d", str(n_depth), "-r", str(n_runs)]
    rows = _json_lines([*command, *sizes, *work, "-o", "jsonl"])
    names = {"n_prompt": "prefill", "n_gen": "decode"}
    return {name: row["avg_ts"] for key, name in names.items() for row in rows if row[key]}


def llama_batched_bench(
    setting: Setting, n_prompt: int, n_tokens: int, n_parallel: int, n_times: int, *, repack: bool = True
) -> dict[str, float]:
    """Return prompt and generated tokens a second of `n_times` batches of `n_parallel` equal generations, nothing sampled."""
    n_ctx = n_parallel * (n_prompt + n_tokens)
    work = ["-npp", n_prompt, "-ntg", n_tokens, "-npl", ",".join([str(n_parallel)] * n_times), "-c", n_ctx]
    options = [*peer_options(setting.subject), *map(str, work), *([] if repack else ["--no-repack"])]
    rows = _json_lines([str(setting.peers.batched_bench), *options, "--output-format", "jsonl"])
    return {"total": n_times * n_ctx / sum(row["t"] for row in rows)}


def _json_lines(command: Sequence[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in lines]
