"""Whether llama.cpp's own programs load a tailored file: llama-bench measures it, and llama_cpp.Llama has the logits that mixcli has."""

import json
import subprocess
from pathlib import Path

from bench.peers import Peers
from bench.tailor.quality import HIGH, LOW, SHARES
from tests.support.bindings import SAME, distance_from_bindings
from tests.support.tailoring import TailoringLab

TOKENS = (1, *range(300, 363))


def checked(lab: TailoringLab, programs: Peers, path: Path, n_threads: int) -> dict[str, float]:
    """Write a tailored file and return llama-bench's tok/s of it, and how far logits are apart, as a share of their spread.

    Ends with a sentence where llama-bench does not load the file, or logits are not the same.
    """
    types = lab.problem.within(lab.between(LOW, HIGH, SHARES[0]), lab.standard(LOW))
    lab.write(types, path)
    work = ["-p", "64", "-n", "16", "-r", "1", "-t", str(n_threads), "-o", "jsonl"]
    command = [str(programs.bench), "-m", str(path), *work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(rows) != 2:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    distance = distance_from_bindings(path, TOKENS)
    if not distance < SAME:
        raise SystemExit(f"{path}: logits are {distance:g} of their spread apart, more than {SAME:g}")
    rates = {"prefill" if row["n_prompt"] else "decode": row["avg_ts"] for row in rows}
    return {**rates, "logits_apart": distance}
