"""Ask other processes for their state, each in a thread of its own: one that hangs holds up no other, nor the end of this program."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Heard(NamedTuple, Generic[T]):
    """The newest answer, None where there is none yet; and the seconds since the question was asked that is not answered, 0 for none."""

    answer: T | None
    overdue: float


class Inquiries(Generic[T]):
    """Questions by key, of which each key has one open at a time."""

    def __init__(self) -> None:
        self._open: dict[str, _Inquiry[T]] = {}
        self._answers: dict[str, T | None] = {}

    def ask(self, questions: Mapping[str, Callable[[], T]]) -> None:
        """Ask every key that has no open question; keys that are not there any more are forgotten."""
        for known in (self._open, self._answers):
            for key in known.keys() - questions.keys():
                del known[key]
        for key, question in questions.items():
            if key not in self._open:
                self._open[key] = _Inquiry(question)

    def hear(self, seconds: float) -> dict[str, Heard[T]]:
        """Wait for the answers to the newest questions, at most so long, and return what is known of each key; raise what a question raised.

        A question that an earlier call has waited for is not waited for again.
        """
        deadline = time.monotonic() + seconds
        overdue: dict[str, float] = {}
        for key, inquiry in list(self._open.items()):
            if inquiry.is_new:
                inquiry.is_new = False
                inquiry.done.wait(max(0.0, deadline - time.monotonic()))
            if inquiry.done.is_set():
                del self._open[key]
                self._answers[key] = inquiry.answer()
            else:
                overdue[key] = time.monotonic() - inquiry.began
        keys = self._answers.keys() | self._open.keys()
        return {key: Heard(self._answers.get(key), overdue.get(key, 0.0)) for key in sorted(keys)}


class _Inquiry(Generic[T]):
    """One question, asked in a thread that the end of the program does not wait for."""

    def __init__(self, question: Callable[[], T]) -> None:
        self.began = time.monotonic()
        self.is_new = True
        self.done = threading.Event()
        self._question = question
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="inquiry", daemon=True).start()

    def answer(self) -> T:
        """Return the answer, or raise why there is none; called when it is done."""
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._question()
        except Exception as error:
            self._error = error
        self.done.set()


__all__ = ["Heard", "Inquiries"]
