"""Work in several threads: in any order, with an end after errors and interrupts."""

import threading
import time
from collections.abc import Callable, Generator
from typing import cast

import pytest

from quantize.parallel import in_parallel
from tests.support.interrupts import at_each_instruction


def test_all_numbers_are_worked_on_by_so_many_threads() -> None:
    together = threading.Barrier(3, timeout=60)

    def work(number: int) -> int:
        together.wait()
        return 2 * number

    assert dict(in_parallel(work, range(30), 3)) == {number: 2 * number for number in range(30)}
    assert list(in_parallel(work, [], 3)) == []


def test_an_error_stops_the_rest_and_waits_for_what_has_begun() -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError("3 is wrong")
        time.sleep(0.01)
        ended.append(number)

    with pytest.raises(ValueError, match="3 is wrong"):
        list(in_parallel(work, range(1000), 2))
    assert sorted([*ended, 3]) == sorted(begun)
    assert len(begun) < 20


def test_work_that_is_not_joined_holds_nobody_up() -> None:
    is_over = threading.Event()
    found = cast(
        Generator[tuple[int, object]], in_parallel(lambda n: n or is_over.wait(60), range(2), 2, joins=False)
    )
    assert next(found) == (1, 1)
    found.close()
    is_over.set()


def test_it_ends_wherever_it_is_interrupted() -> None:
    """ThreadPoolExecutor keeps a lock when it is interrupted at some instructions, and its end waits for that."""
    begun: list[Generator[tuple[int, int]]] = []

    def begin() -> Callable[[], object]:
        found = cast(Generator[tuple[int, int]], in_parallel(lambda number: number, range(4), 2))
        begun.append(found)
        return lambda: list(found)

    assert at_each_instruction(begin, lambda _: begun[-1].close()) > 10
