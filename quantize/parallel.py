"""A thread pool over numbered tasks, with as few in flight as keep all threads busy."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(work: Callable[[int], T], numbers: Iterable[int], n_workers: int) -> Iterator[tuple[int, T]]:
    """Run `work` on each number in a pool; give (number, result) as they finish. An error stops the rest."""
    waiting = iter(numbers)
    running: dict[Future[T], int] = {}
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="quantize")
    try:
        while True:
            while len(running) < 2 * n_workers and (number := next(waiting, None)) is not None:
                running[pool.submit(work, number)] = number
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


__all__ = ["in_parallel", "n_cores"]
