"""A Ray cluster of two nodes on this machine, in a process of its own, and what tests ask of it.

    python -m tests.support.ray_cluster [CORE CORE]

Prints its address and reads commands, each of which it answers with a line: `kill` ends the second node, `add` adds one, and `apps` lists the
applications of Ray Serve. With two cores each node, with all that it starts, keeps to one of them.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

LIMIT = 300  # seconds for a command, or the end
STORE = 100 << 20  # bytes of the object store of a node: Ray would take a third of the memory


class RayCluster:
    """The cluster, as a test has it."""

    def __init__(self, *cores: int) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.support.ray_cluster", *map(str, cores)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self._answer()

    def kill_a_node(self) -> None:
        assert self.do("kill") == "done"

    def do(self, command: str) -> str:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the cluster, and whatever it leaves behind."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(LIMIT)
        finally:
            self._kill()
            self._reader.join(LIMIT)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.strip())
        self._lines.put("")  # it has ended

    def _answer(self) -> str:
        with suppress(Empty):
            if answer := self._lines.get(timeout=LIMIT):
                return answer
        self._kill()
        raise AssertionError(f"the cluster did not answer within {LIMIT} s, or ended")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class _Commands:
    """The cluster, in its own process."""

    def __init__(self, cores: list[int]) -> None:
        from ray.cluster_utils import Cluster

        self._cores = cores
        self._keep_to(0)
        head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster: Cluster = Cluster(initialize_head=True, head_node_args=head)
        self.add()

    def add(self) -> str:
        self._keep_to(1)
        self._second = self.cluster.add_node(num_cpus=2, object_store_memory=STORE)
        self.cluster.wait_for_nodes()
        return "done"

    def kill(self) -> str:
        self.cluster.remove_node(self._second, allow_graceful=False)
        return "done"

    def apps(self) -> str:
        self._join()
        from ray import serve

        return " ".join(serve.status().applications) or "none"

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()

    def _join(self) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(self.cluster.address, logging_level="ERROR", log_to_driver=False)

    def _keep_to(self, number: int) -> None:
        if self._cores:
            os.sched_setaffinity(0, {self._cores[number]})


def main(cores: list[int]) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # seconds: beside heavy load a proxy is not ready in 5, and Ray would start it over and over
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    commands = _Commands(cores)
    print(commands.cluster.address, flush=True)  # noqa: T201
    for line in sys.stdin:
        print(getattr(commands, line.strip())(), flush=True)  # noqa: T201
    commands.close()


if __name__ == "__main__":
    main([int(core) for core in sys.argv[1:]])
