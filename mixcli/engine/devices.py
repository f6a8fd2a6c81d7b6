"""This machine's devices as llama.cpp sees them, told to another process: `python -m mixcli.engine.devices [WORKER...]`.

A process of its own, because looking at a CUDA device takes some of its memory for as long as the process lives.
"""

import json
import sys
from dataclasses import asdict

from mixcli.engine import ggml, rpc
from mixcli.errors import MixcliError


def main(endpoints: list[str]) -> None:
    """Write the devices as JSON, or {"error": sentence, "exit_code": n}."""
    try:
        for endpoint in endpoints:
            rpc.connect(endpoint)
        sys.stdout.write(json.dumps([asdict(device) for device in ggml.devices()]))
    except MixcliError as error:
        sys.stdout.write(json.dumps({"error": str(error), "exit_code": error.exit_code}))


if __name__ == "__main__":
    main(sys.argv[1:])
