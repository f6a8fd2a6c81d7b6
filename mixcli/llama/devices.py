"""List this machine's devices as llama.cpp sees them, as a child process: `python -m mixcli.llama.devices [WORKER...]`.

A process of its own, because looking at a CUDA device takes some of its memory for as long as the process lives.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace

from mixcli.errors import MixcliError
from mixcli.llama import ggml, rpc
from mixcli.llama.rpc_wire import distinct, measured_path
from mixcli.llama.worker_watch import WorkerWatch
from mixcli.system.device_facts import DeviceFacts, NetworkPath

SILENCE = 15.0  # seconds for a worker to list its devices


def main(endpoints: list[str]) -> None:
    """Write the devices as JSON, or {"error": sentence, "exit_code": n}."""
    try:
        with WorkerWatch(endpoints, _give_up).waiting(SILENCE):
            paths = {endpoint: measured_path(endpoint) for endpoint in distinct(endpoints)}
            for endpoint in paths:
                rpc.connect(endpoint)
            found = [asdict(_with_path(device, paths)) for device in ggml.devices()]
        sys.stdout.write(json.dumps(found))
    except MixcliError as error:
        _show(error)


def _with_path(device: DeviceFacts, paths: Mapping[str, NetworkPath]) -> DeviceFacts:
    """Return a device with the network path to the worker that has it."""
    path = paths.get(device.worker)
    return replace(device, round_trip=path.round_trip, network_gbs=path.gbs) if path else device


def _show(error: MixcliError) -> None:
    sys.stdout.write(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    sys.stdout.flush()


def _give_up(error: MixcliError) -> None:
    _show(error)
    os._exit(0)  # llama.cpp waits for a worker


if __name__ == "__main__":
    main(sys.argv[1:])
