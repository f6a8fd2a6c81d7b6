"""A bounded window of concurrent requests, fed as fast as the results are consumed.

Threads suffice here: one waits in a socket for each request, and a request costs the client a fraction of a millisecond.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_END = object()


class Pool(Generic[T, R]):
    """Runs `work` on tasks, `window` at a time, and yields results as they come.

    At most `ahead` tasks are taken from the source beyond what the caller has released: that is the backpressure, and the
    bound on memory. The source is read in a thread of its own, so results come out while it waits for more input.
    Ctrl-C comes at any instruction of the caller's: what it shares with the threads are queues written in C, which cannot be left locked by it.
    """

    def __init__(self, work: Callable[[T], R], window: int, ahead: int) -> None:
        self._work, self._window = work, window
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[T | object] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[R | BaseException | object] = queue.SimpleQueue()
        self._is_stopped = False
        for _ in range(ahead):
            self.release()

    def results(self, source: Iterator[T]) -> Iterator[R]:
        """Yield the result of every task, in the order of completion; what the source or the work raises is raised here."""
        names = ["reader", *(f"asker-{n}" for n in range(self._window))]
        threads = [threading.Thread(target=self._read, args=(source,), name=names[0], daemon=True)]
        threads += [threading.Thread(target=self._ask, name=name, daemon=True) for name in names[1:]]
        for thread in threads:
            thread.start()
        try:
            left = self._window
            while left:
                item = self._done.get()
                if item is _END:
                    left -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item  # type: ignore[misc]
        finally:
            self._is_stopped = True
            self.release()

    def release(self) -> None:
        """Mark one result as dealt with, so that another task may be taken."""
        self._slots.put(None)

    def _read(self, source: Iterator[T]) -> None:
        try:
            for task in source:
                self._slots.get()
                if self._is_stopped:
                    return
                self._tasks.put(task)
        except BaseException as error:
            self._done.put(error)
        finally:
            for _ in range(self._window):
                self._tasks.put(_END)

    def _ask(self) -> None:
        try:
            while (task := self._tasks.get()) is not _END and not self._is_stopped:
                self._done.put(self._work(task))  # type: ignore[arg-type]
        except BaseException as error:
            self._done.put(error)
        finally:
            self._done.put(_END)
