"""Plan a model for reading texts, name what it computes, and run the child process that reads them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mixcli.errors import (
    DoesNotFit,
    IntegrityError,
    MixcliError,
    ModelDied,
    NotReachable,
    UsageError,
)
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.orders import N_CTX, ChildLine, Order, n_at_once
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import check_devices
from mixcli.planning.plan_load import plan_load
from mixcli.store.headers import header_of
from mixcli.store.store import StoredModel
from mixcli.system import python_child
from mixcli.system.console import Bar, console
from profiles.placement import Placement
from profiles.request import PlanRequest
from quantize.bindings import VERSION
from quantize.sources.input_file import fingerprint_of

SILENCE = (
    3600.0  # seconds in which a child must report something: some chunks, on a slow machine from a slow disk
)
N_UBATCH = 512  # on a CPU, as in llama.cpp's programs: sums depend on it in their last digits; GPUs that stream experts want more
ERRORS: dict[int, type[MixcliError]] = {
    error.exit_code: error for error in (UsageError, DoesNotFit, IntegrityError, NotReachable)
}


def key_of(stored: StoredModel, load_options: LoadOptions, *how: object) -> str:
    """Name what a model computes by all that decides about it, 64 hex digits: its files, `how` they are used, the type of the KV cache, the library."""
    digest = hashlib.sha256()
    for part in stored.parts:
        digest.update(fingerprint_of(part))
    digest.update(json.dumps([VERSION, load_options.request.kv, *how]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def plan_reading(stored: StoredModel, load_options: LoadOptions, n_ctx: int) -> LoadPlan:
    """Return how to load a model that reads chunks of `n_ctx` tokens, some at once; DoesNotFit or IntegrityError where it cannot."""
    request = request_of(load_options, n_ctx, _longest_text(stored))
    plan = plan_load(stored, replace(load_options, request=request))
    check_devices(plan.expected, load_options)
    return _for_reading(plan, n_at_once(n_ctx), n_ctx)


def request_of(load_options: LoadOptions, n_ctx: int, n_ctx_train: int) -> PlanRequest:
    """Return what is asked of a plan for reading chunks of `n_ctx` tokens; together they may be longer than one text may be."""
    n = n_at_once(n_ctx)
    return replace(
        load_options.request,
        n_ctx=max(n_ctx, min(n * n_ctx, n_ctx_train)),
        kv=load_options.request.kv or "f16",
        n_seq_max=n,
        purpose=f"{n * n_ctx}+1",
    )


def _longest_text(stored: StoredModel) -> int:
    """Return how many tokens a model was trained on, as its header has it."""
    header = header_of(stored.parts)
    found = header.get(f"{header.get('general.architecture')}.context_length")
    return found if isinstance(found, int) else 0


def _for_reading(plan: LoadPlan, n: int, n_ctx: int) -> LoadPlan:
    n_ubatch = plan.placement.n_ubatch if plan.placement.n_gpu_layers else N_UBATCH
    placement: Placement = replace(
        plan.placement, n_ctx=n * n_ctx, n_batch=n_ubatch, n_ubatch=n_ubatch, n_seq_max=n
    )
    smaller = plan.smaller and _for_reading(plan.smaller, n, n_ctx)
    return replace(plan, placement=placement, expected={}, smaller=smaller)


def run(
    order: Order, label: str, bar: Bar, on_result: Callable[[Mapping[str, object]], None] | None = None
) -> Any:
    """Carry out an order in a child process and return its last result, a JSON object; notes go to stderr.

    `on_result` gets every result when it comes.

    Raises the child's own errors, and ModelDied with its last words where it crashed or was silent for too long.
    """
    results: list[Mapping[str, Any]] = []
    bar.update(0, 1, f"loading {label}")
    done = python_child.run(
        "-m",
        "mixcli.insight.compute",
        seconds=SILENCE,
        stdin=order.to_json(),
        on_line=_listener(bar, results, on_result or (lambda _: None)),
    )
    if done.succeeded and results:
        return results[-1]
    if (kind := ERRORS.get(done.code)) and not done.timed_out:
        raise kind(done.last_words)
    raise ModelDied(f"the process that computes with {label} failed: {done.last_words}")


def _listener(
    bar: Bar, results: list[Mapping[str, Any]], on_result: Callable[[Mapping[str, object]], None]
) -> Callable[[str], None]:
    def listen(text: str) -> None:
        line = ChildLine.from_json(text)
        if line.note:
            console.note(line.note)
        if line.result is not None:
            results.append(line.result)
            on_result(line.result)
        if line.total:
            bar.update(line.done, line.total, line.stage)

    return listen


__all__ = ["N_CTX", "plan_reading", "run"]
