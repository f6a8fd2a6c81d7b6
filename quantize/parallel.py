"""A thread pool over numbered tasks, with as few in flight as keep all threads busy."""

import _thread
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(
    work: Callable[[int], T], numbers: Iterable[int], n_workers: int, *, joins: bool = True
) -> Iterator[tuple[int, T]]:
    """Run `work` on each number in threads; yield (number, result) as they finish. An error stops the rest.

    With `joins`, work that has begun is waited for also after an error or Ctrl-C. Ctrl-C comes at any instruction: what is shared with
    the threads are queues written in C, which cannot be left locked by it, as the locks of threading and concurrent.futures can.
    """
    waiting = iter(numbers)
    tasks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Callable[[], T]]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run() -> None:
        while (number := tasks.get()) is not None:
            done.put((number, _outcome(work, number)))
        ended.put(None)

    n_threads = n_running = 0
    try:
        while True:
            while n_running < 2 * n_workers and (number := next(waiting, None)) is not None:
                tasks.put(number)
                n_running += 1
                if n_threads < n_workers:
                    _thread.start_new_thread(run, ())
                    n_threads += 1
            if not n_running:
                return
            number, outcome = done.get()
            n_running -= 1
            yield number, outcome()
    finally:
        _empty(tasks)
        for _ in range(n_workers):
            tasks.put(None)
        for _ in range(n_threads if joins else 0):
            ended.get()


def _outcome(work: Callable[[int], T], number: int) -> Callable[[], T]:
    """Do the work; return what returns its result, or raises its error."""
    try:
        result = work(number)
    except BaseException as caught:
        error = caught

        def fail() -> T:
            raise error

        return fail
    return lambda: result


def _empty(tasks: "queue.SimpleQueue[int | None]") -> None:
    while not tasks.empty():
        try:
            tasks.get_nowait()
        except queue.Empty:
            return


__all__ = ["in_parallel", "n_cores"]
