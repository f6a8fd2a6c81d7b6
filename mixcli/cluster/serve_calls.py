"""Calls to Ray Serve, each with an end, and the lock under which commands start and end it.

Ray's own functions wait for the controller for as long as it takes, also for one that hangs or is on a machine that is off.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from mixcli.cluster.nodes import near
from mixcli.errors import InUse, NotReachable
from mixcli.system.console import console

T = TypeVar("T")
CALL_TIMEOUT = 60.0  # seconds for the controller to answer
CHANGE_TIMEOUT = 120.0  # seconds for a start, a deletion or an end: processes begin or end
LOCK_TIMEOUT = 240.0  # seconds for another command to start or to end Ray Serve
POLL_INTERVAL = 0.5  # seconds between two tries to get the lock
NAMESPACE = "mixcli"
LOCK = "mixcli-serve-lock"


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Return the result of a call; NotReachable where it takes longer, in which `what` says what was waited for."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError:
        if result.done():  # it ended just now, or with an error of its own
            return result.result()
        raise NotReachable(
            f"{what} took longer than {seconds:.0f} seconds: Ray Serve does not respond; see `ray status`"
        ) from None


class Holder:
    """An actor that exists as long as the command that made it: its name is taken meanwhile."""


@contextlib.contextmanager
def serve_lock(ray: Any) -> Generator[None]:
    """Hold the lock of a cluster under which Ray Serve is started, gets an application, and is ended; InUse where another command keeps it."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    is_noted = False
    while True:
        try:
            holder = held(ray, LOCK)
            break
        except ValueError:  # the name is taken
            if time.monotonic() > deadline:
                raise InUse(
                    f"another `mixcli serve --ray` has been starting or ending Ray Serve on this cluster for {LOCK_TIMEOUT:.0f} seconds; "
                    "end that command, and rerun this one"
                ) from None
        if not is_noted:
            is_noted = True
            console.note(
                "waiting for another `mixcli serve --ray`, which starts or ends Ray Serve on this cluster"
            )
        time.sleep(POLL_INTERVAL)
    try:
        yield
    finally:
        ray.kill(holder)


def held(ray: Any, name: str) -> Any:
    """Return an actor on this node that has a name of the cluster until this process ends, however that ends; ValueError where it is taken."""
    return (
        ray.remote(Holder)
        .options(name=name, namespace=NAMESPACE, num_cpus=0, scheduling_strategy=near(ray))
        .remote()
    )


__all__ = ["CALL_TIMEOUT", "CHANGE_TIMEOUT", "held", "serve_lock", "within"]
