"""Run llama.cpp's RPC server in a child process that ends with its parent."""

import subprocess
from collections import deque

from mixcli.errors import MixcliError
from mixcli.system import python_child


def serve_memory(endpoint: str, n_threads: int) -> None:
    """Serve at HOST:PORT until interrupted; MixcliError with the server's last line when it ends unexpectedly."""
    with subprocess.Popen(
        python_child.command("-m", "mixcli.llama.rpc", endpoint, str(n_threads)),
        stdin=subprocess.PIPE,  # closed when this process ends, in any way: the child then exits
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=python_child.environment(),
    ) as child:
        try:
            assert child.stderr is not None
            # not communicate(), which would close its stdin; only the end is kept: it may run for months and log each bad client
            said = deque(filter(None, map(str.strip, child.stderr)), maxlen=1)
            child.wait()
        except BaseException:
            child.kill()
            raise
    last = said[0] if said else f"exit code {child.returncode}"
    raise MixcliError(f"the worker at {endpoint} crashed: {last}")
