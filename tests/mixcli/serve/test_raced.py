"""Work that ends when something else comes first, and both in the same moment."""

import asyncio
from typing import Any

import pytest

from mixcli.serve.forwarding import raced


async def _raced(*which: str) -> tuple[int | None, list[dict[str, Any]]]:
    """Let the work, the end, or both come in this order within one turn of the loop; return what came first, and what the loop complained of."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    events = {"work": asyncio.Event(), "end": asyncio.Event()}

    async def until(name: str) -> None:
        await events[name].wait()

    race = asyncio.create_task(raced(until("work"), until("end")))
    await asyncio.sleep(0.01)
    for name in which:
        events[name].set()
    first = await race
    await asyncio.sleep(0.01)
    return first, complaints


@pytest.mark.parametrize(("which", "first"), [(("work",), None), (("end",), 0)])
def test_what_comes_first_counts(which: tuple[str, ...], first: int | None) -> None:
    assert asyncio.run(_raced(*which)) == (first, [])


@pytest.mark.parametrize("which", [("work", "end"), ("end", "work")])
def test_both_in_one_moment_leave_no_complaint(which: tuple[str, ...]) -> None:
    first, complaints = asyncio.run(_raced(*which))
    assert first in {None, 0}
    assert complaints == []


def test_what_the_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("it fails")

    async def race() -> None:
        await raced(fails(), asyncio.Event().wait())  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="it fails"):
        asyncio.run(race())
