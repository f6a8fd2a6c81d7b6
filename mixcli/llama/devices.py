"""List this machine's devices as llama.cpp sees them, as a child process: `python -m mixcli.llama.devices [WORKER...]`.

A process of its own, because looking at a CUDA device takes some of its memory for as long as the process lives.
"""

import json
import os
import sys
from dataclasses import asdict

from mixcli.errors import MixcliError
from mixcli.llama import ggml, rpc
from mixcli.llama.worker_watch import WorkerWatch

SILENCE = 15.0  # seconds for a worker to list its devices


def main(endpoints: list[str]) -> None:
    """Write the devices as JSON, or {"error": sentence, "exit_code": n}."""
    try:
        with WorkerWatch(endpoints, _give_up).waiting(SILENCE):
            for endpoint in endpoints:
                rpc.connect(endpoint)
            found = [asdict(device) for device in ggml.devices()]
        sys.stdout.write(json.dumps(found))
    except MixcliError as error:
        _show(error)


def _show(error: MixcliError) -> None:
    sys.stdout.write(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    sys.stdout.flush()


def _give_up(error: MixcliError) -> None:
    _show(error)
    os._exit(0)  # llama.cpp waits for a worker


if __name__ == "__main__":
    main(sys.argv[1:])
