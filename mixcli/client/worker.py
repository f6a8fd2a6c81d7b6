"""Run llama.cpp's RPC server in a child process that ends with its parent."""

import subprocess

from mixcli.errors import MixcliError
from mixcli.system import python_child


def serve_memory(endpoint: str, n_threads: int) -> None:
    """Serve at HOST:PORT until interrupted; MixcliError with the server's last line when it ends unexpectedly."""
    child = subprocess.Popen(
        python_child.command("-m", "mixcli.llama.rpc", endpoint, str(n_threads)),
        stdin=subprocess.PIPE,  # closed when this process ends, in any way: the child then exits
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=python_child.environment(),
    )
    try:
        assert child.stderr is not None
        said = child.stderr.read()  # not communicate(), which would close its stdin
        child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    last = (said.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
    raise MixcliError(f"the worker at {endpoint} crashed: {last}")
