"""Let llama.cpp read a GGUF header and say what it would allocate, as a child process: `python -m mixcli.llama.header_trial` with an order on stdin.

Order and answer are those of mixcli/system/measurements.py. A process of its own, because a header may make llama.cpp abort, crash, or take
memory without end. Nothing is allocated for weights and caches, and no data is read.
"""

import os
import resource
import sys
from dataclasses import replace

from mixcli.errors import IntegrityError, MixcliError
from mixcli.llama import ggml, rpc
from mixcli.llama.buffers import HOST, buffers_in, cache_in
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.native import LOG
from mixcli.system import child_limits
from mixcli.system.measurements import TrialAnswer, TrialBuffers, TrialOrder
from profiles.placement import Placement

MAX_DATA = 4 << 30  # bytes of memory of its own; GPU libraries reserve addresses beside that
MAX_SECONDS = 60  # of processor time


def main() -> None:
    """Read the order, write the answer; exit with a sentence on stderr where llama.cpp refuses the header."""
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, MAX_DATA),
        (resource.RLIMIT_CPU, MAX_SECONDS),
    ):
        child_limits.limit(limit, most)
    out = os.dup(1)
    os.dup2(2, 1)  # llama.cpp's server of stand-ins writes on stdout
    order = TrialOrder.from_json(sys.stdin.read())
    try:
        answer = _answer(order)
    except MixcliError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    os.write(out, answer.to_json().encode())


def _answer(order: TrialOrder) -> TrialAnswer:
    if order.vocabulary is not None:
        Model.load_vocab(order.vocabulary).close()
    # in the order of a load, which is that of the devices
    for endpoint in dict.fromkeys(worker for placement in order.placements for worker in placement.workers):
        rpc.connect(endpoint)
    try:
        names = _devices(order.gpus)
    except MixcliError:  # no stand-ins in this build of llama.cpp
        return TrialAnswer(())
    placements = order.placements or (Placement(n_ctx=256, n_batch=32, n_ubatch=32),)
    found = tuple(_buffers(order, placement, names) for placement in placements)
    return TrialAnswer(found[: len(order.placements)])


def _devices(gpus: tuple[str, ...]) -> dict[str, str]:
    """Return the buffer type here of each GPU of the plan: its own, or that of a stand-in where the plan is for another machine."""
    if not set(gpus) - ggml.buffer_types().keys():
        return {gpu: gpu for gpu in gpus}
    return {gpu: device.buffer_type for gpu, device in zip(gpus, rpc.stand_ins(len(gpus)), strict=True)}


def _buffers(order: TrialOrder, placement: Placement, names: dict[str, str]) -> TrialBuffers:
    """Lay out a placement, and read what it would take from llama.cpp's log."""
    here = _renamed(placement, names)
    with Model.load(order.header, here, no_alloc=True) as model:
        if why := model.why_not_text:
            raise IntegrityError(f"{order.header.name} is {why}; mixcli does not run such models")
        with Context(model, here):
            log = LOG.lines()
    buffers = buffers_in(log, names.values())
    return TrialBuffers(
        cache_in(log),
        tuple(buffers[device].compute for device in (*names.values(), HOST)),
        has_stand_ins=any(gpu != device for gpu, device in names.items()),
    )


def _renamed(placement: Placement, names: dict[str, str]) -> Placement:
    overrides = tuple((pattern, names.get(buffer, buffer)) for pattern, buffer in placement.tensor_overrides)
    return replace(placement, tensor_overrides=overrides)


if __name__ == "__main__":
    main()
