"""tune: measure a few placements around the plan, prefill and decode apart, and keep the best for the purpose."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from mixcli.errors import ModelDied
from mixcli.insight.plans import Subject
from mixcli.insight.verify import measured
from profiles.errors import DoesNotFit
from profiles.layout import layout_of
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import WORK, Purpose, Request

PROMPT, TOKENS = 256, 24  # what one measurement computes
CONTEXTS = (65536, 32768, 16384, 8192, 4096, 2048, 1024)


@dataclass(frozen=True)
class Measurement:
    """One placement, what is different about it, and its tokens a second."""

    what: str
    placement: Placement
    prefill: float
    decode: float

    def seconds(self, purpose: Purpose) -> float:
        """Give the time for one piece of work of that purpose."""
        read, write = WORK[purpose]
        return read / self.prefill + write / self.decode

    def row(self) -> dict[str, Any]:
        return {"what": self.what, "prefill": round(self.prefill, 2), "decode": round(self.decode, 2)}


def candidates(subject: Subject, machine: Machine, request: Request) -> Iterator[tuple[str, Placement]]:
    """Give the plan, then placements that differ from it in one thing each; all fit."""
    base = plan(subject.shape, machine, request).placement
    yield "the plan", base
    variants: list[tuple[str, Placement]] = []
    if not base.tensor_overrides and not base.n_gpu_layers:
        variants.append(
            (f"repacking {'off' if base.repack else 'on'}", replace(base, repack=not base.repack))
        )
    for n in sorted(
        {max(1, machine.n_cores // 2), max(1, machine.n_cores - 1), 2 * machine.n_cores} - {base.n_threads}
    ):
        variants.append((f"{n} threads", replace(base, n_threads=n, n_threads_batch=n)))
    for n_ubatch in (128, 256, 512, 1024, 2048):
        if request.n_ubatch is None and n_ubatch != base.n_ubatch:
            try:
                other = plan(subject.shape, machine, replace(request, n_ubatch=n_ubatch)).placement
            except DoesNotFit:
                continue
            variants.append((f"micro-batches of {n_ubatch}", other))
    if request.kv == "auto" and base.type_k == "f16":  # it costs quality, so only where that was allowed
        variants.append(("a cache in q8_0", replace(base, type_k="q8_0", type_v="q8_0")))
    for what, placement in variants:
        ledger = accounts(subject.shape, machine, placement, layout_of(subject.shape, placement, machine))
        if all(account.left >= 0 for account in ledger):
            yield what, placement


def sweep(
    subject: Subject,
    machine: Machine,
    request: Request,
    budget: float,
    report: Callable[[float, float, str], None],
) -> list[Measurement]:
    """Measure candidates until `budget` seconds are over, the plan always; best first for the request's purpose.

    A candidate that dies is left out. Raises ModelDied when the plan itself does.
    """
    todo = list(candidates(subject, machine, request))
    end = time.monotonic() + budget
    found: list[Measurement] = []
    for number, (what, placement) in enumerate(todo):
        if found and time.monotonic() > end:
            break
        report(number, len(todo), what)
        try:
            found.append(measure(subject, what, placement))
        except ModelDied:
            if not number:
                raise
    return sorted(found, key=lambda one: one.seconds(request.purpose))


def measure(subject: Subject, what: str, placement: Placement) -> Measurement:
    """Measure one placement in a process of its own."""
    prompt = min(PROMPT, placement.n_ctx // 2)
    answer = measured(subject, placement, {}, prompt=prompt, tokens=TOKENS)
    return Measurement(what, placement, answer["prefill"], answer["decode"])


def reaching(
    subject: Subject, machine: Machine, request: Request, tokens_per_second: float, base: Measurement
) -> Measurement | None:
    """Find the largest context whose plan still writes so fast, measured; None when none does.

    The estimate, held to what `base` measured, says where it is worth measuring.
    """
    estimated = plan(subject.shape, machine, replace(request, n_ctx=base.placement.n_ctx)).estimate.decode
    for n_ctx in CONTEXTS:
        if n_ctx > (subject.shape.n_ctx_train or n_ctx):
            continue
        try:
            one = plan(subject.shape, machine, replace(request, n_ctx=n_ctx))
        except DoesNotFit:
            continue
        if one.estimate.decode * base.decode / estimated < tokens_per_second * 0.8:
            continue
        found = measure(subject, f"--ctx {n_ctx}", one.placement)
        if found.decode >= tokens_per_second:
            return found
    return None
