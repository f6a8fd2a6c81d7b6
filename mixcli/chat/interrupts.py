"""Handle Ctrl-C during an answer: stop waiting for the model, but finish saving and drawing."""

import signal
from collections.abc import Generator, Iterable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from mixcli.system.signals import Interrupted

T = TypeVar("T")


class Interrupts:
    """Holds SIGINT back while the block runs; `each` lets it through as KeyboardInterrupt while it waits for the next item."""

    def __init__(self) -> None:
        self._caught = False
        self._waiting = False

    def __enter__(self) -> Self:
        self._before: Any = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def each(self, items: Iterable[T]) -> Generator[T, None, None]:
        """Yield every item; KeyboardInterrupt as soon as one was asked for, while or before the next is waited for."""
        iterator = iter(items)
        while True:
            self._waiting = True
            try:
                if self._caught:
                    raise Interrupted
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield item

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._caught = True
        if self._waiting:
            raise Interrupted
