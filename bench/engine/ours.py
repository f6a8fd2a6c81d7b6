"""mixcli's engine without HTTP: loads of random tokens, run by bench/engine/driver.py in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from profiles.placement import Placement


@dataclass(frozen=True)
class Load:
    """So many generations of `n_tokens` tokens from prompts of `n_prompt`, `n_at_once` of them in flight.

    Tokens are drawn as llama.cpp's default sampling does, or greedily at `temperature` 0; nothing ends before its time.
    """

    n_requests: int
    n_prompt: int
    n_tokens: int
    n_at_once: int = 1
    temperature: float = 0.8


@dataclass(frozen=True)
class Tally:
    """What a load took: seconds on the wall, and the sums of its requests' own clocks."""

    seconds: float
    n_prompt: int
    n_generated: int
    seconds_prefill: float
    seconds_decode: float
    n_requests: int

    @property
    def decode_rate(self) -> float:
        """Tokens a second from each request's first token to its last."""
        return (self.n_generated - self.n_requests) / self.seconds_decode

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, the choice of the first token included."""
        return self.n_prompt / self.seconds_prefill

    @property
    def total_rate(self) -> float:
        """Prompt and generated tokens a second of the wall clock."""
        return (self.n_prompt + self.n_generated) / self.seconds


def measure(path: Path, placement: Placement, loads: Sequence[Load]) -> list[Tally]:
    """Run the loads one after the other in a fresh process, on one loaded model that has been warmed up."""
    order = {"path": str(path), "placement": placement.to_json(), "loads": [asdict(load) for load in loads]}
    done = subprocess.run(
        [sys.executable, "-m", "bench.engine.driver"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"mixcli's engine ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return [Tally(**tally) for tally in json.loads(done.stdout)]
