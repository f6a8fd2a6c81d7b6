"""Hold the estimates for a processor to what it does: types of weights in two layouts, and the layout that is chosen for mixed loads.

    python -m bench.rates FOLDER [--only Q4_K_S,Q8_0,400+150] [--times N] [--cache]

Ten types on two layers of Mixtral 8x7B (1.2 to 3.4 GB each, half a minute a type): prefill of 512 tokens and decode of 48, predicted from the rates
of the machine (measured first, where they are not known) and measured. Then mixed loads, 400 tokens in and 150 out, 50 and 250, 3,000 and 100,
on four layers at Q4_K_M (3.7 GB, two to five minutes each): the plan's layout against the other one and against llama.cpp's defaults (repacked, flash attention,
micro-batches of 512). Every model is written into FOLDER and removed, unless --cache keeps it. Run it on a quiet machine; parts may be
run one after the other. Ends with 1 when a part misses its target.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from bench.estimate import Numbers, Promise, Verdict, findings
from bench.turns import Side, all_turns
from mixcli.planning.cpu_rates import host_rates, with_rates
from mixcli.planning.report import Subject
from mixcli.planning.verify_plan import measured
from mixcli.store.headers import header_of, shape_of
from mixcli.system.hardware import this_machine
from profiles.layout import layout_of
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import PlanRequest, work_of, work_seconds
from profiles.speed import estimate
from tests.support.synthetic import shape_named, write_model

TYPES = ("Q2_K", "Q3_K_S", "IQ3_S", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K_S", "Q5_K_S", "Q6_K", "Q8_0")
PROMPT, TOKENS, N_CTX = 512, 48, 1024
WORST, MIDDLE = 0.20, 0.10  # of the prediction: how far one may be off, and the median
# tokens in and out: the most that our time may be of that with llama.cpp's defaults
TARGETS = {"400+150": 0.85, "50+250": 1.02, "3000+100": 0.60}
PLANNED, OTHER_LAYOUT, DEFAULTS = "as planned", "the other layout", "llama.cpp's defaults"
TIE = 1.02  # layouts that are as near as that are as good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    known = (*TYPES, *TARGETS)
    parser.add_argument("--only", default=",".join(known), help="types and loads, with commas between")
    parser.add_argument(
        "--times",
        type=int,
        default=3,
        help="measurements, of which the median counts, and pairs of a mixed load (%(default)s)",
    )
    parser.add_argument("--cache", action="store_true", help="keep the models")
    options = parser.parse_args()
    parts = options.only.split(",")
    if wrong := set(parts) - set(known):
        parser.error(f"unknown part {', '.join(sorted(wrong))}; there are {', '.join(known)}")
    good = True
    off: list[float] = []
    for name in (part for part in parts if part in TYPES):
        with _model(options.folder, name, 2, keep=options.cache) as subject:
            off += list(hold(subject, options.times))
    if off:
        print(f"off by {max(off):.0%} at worst, {median(off):.0%} in the median of {len(off)}")
        good = max(off) <= WORST and median(off) <= MIDDLE
    if loads := [part for part in parts if part in TARGETS]:
        with _model(options.folder, "Q4_K_M", 4, keep=options.cache) as subject:
            for work in loads:
                good &= load(subject, work, options.times)
    return 0 if good else 1


class _model:
    """A synthetic model as long as it is measured."""

    def __init__(self, folder: Path, file_type: str, n_layer: int, *, keep: bool) -> None:
        self._path, self._type, self._layers, self._keep = (
            folder / f"8x7b-{n_layer}-{file_type}.gguf",
            file_type,
            n_layer,
            keep,
        )

    def __enter__(self) -> Subject:
        if not self._path.exists():
            write_model(self._path, shape_named("mixtral-8x7b", self._layers), self._type)
        return Subject(self._path.stem, shape_of(header_of([self._path])), self._path)

    def __exit__(self, *_: object) -> None:
        if not self._keep:
            self._path.unlink(missing_ok=True)


def hold(subject: Subject, n_times: int) -> Iterator[float]:
    """Print predicted and measured rates of both layouts; yields how far each prediction is off, as a share of it."""
    machine = _machine(subject)
    planned = plan(subject.shape, machine, PlanRequest(n_ctx=N_CTX, n_ubatch=PROMPT)).placement
    for repack in (True, False):
        placement = replace(planned, repack=repack)
        layout = layout_of(subject.shape, placement, machine)
        predicted = estimate(subject.shape, machine, placement, layout)
        prefill, decode = rates(subject, placement, PROMPT, TOKENS, n_times)
        pairs = ((prefill, predicted.prefill), (decode, predicted.decode))
        words = [
            f"{real:.1f} tok/s, predicted {guess:.1f} ({real / guess - 1:+.0%})" for real, guess in pairs
        ]
        how = "repacked" if repack else "not repacked"
        print(f"{subject.label}, {how}: prefill {words[0]}; decode {words[1]}", flush=True)
        yield from (abs(real / guess - 1) for real, guess in pairs)


def load(subject: Subject, purpose: str, n_times: int) -> bool:
    """Measure one load as planned, in the other layout and with llama.cpp's defaults, in turns; return whether no target is surely missed."""
    work = work_of(purpose)
    machine = _machine(subject)
    planned = plan(subject.shape, machine, PlanRequest(n_ctx=4096, purpose=purpose)).placement
    default = Placement(n_ctx=4096, n_threads=planned.n_threads, n_threads_batch=planned.n_threads)
    other = replace(planned, repack=not planned.repack)

    def seconds(placement: Placement) -> Numbers:
        prefill, decode = rates(subject, placement, work.read, work.write, 1)
        return {"seconds": work_seconds(purpose, prefill, decode)}

    ways = {PLANNED: planned, OTHER_LAYOUT: other, DEFAULTS: default}
    sides = [Side(name, partial(seconds, placement)) for name, placement in ways.items()]
    rounds = all_turns(sides, n_times)
    how = "repacked" if planned.repack else "not repacked"
    found = findings(
        [
            Promise(
                f"{purpose}, {how}, in terms of {name}",
                (PLANNED, "seconds"),
                (name, "seconds"),
                "at most",
                limit,
            )
            for name, limit in ((OTHER_LAYOUT, TIE), (DEFAULTS, TARGETS[purpose]))
        ],
        rounds,
    )
    print("\n".join(one.line for one in found), flush=True)
    return all(one.verdict != Verdict.NOT_KEPT for one in found)


def rates(
    subject: Subject, placement: Placement, n_prompt: int, n_tokens: int, n_times: int
) -> tuple[float, float]:
    """Measure tokens a second of prefill and decode in processes of their own, the median of `n_times`."""
    found = [measured(subject, placement, {}, prompt=n_prompt, tokens=n_tokens) for _ in range(n_times)]
    return median(one.prefill for one in found), median(one.decode for one in found)


def _machine(subject: Subject) -> Machine:
    """Return this machine with its rates, measured once more where other programs ran the last time."""

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    host_rates(subject.shape.types, say, again=True)
    return with_rates(this_machine(), [subject.shape], say)


if __name__ == "__main__":
    sys.exit(main())
