"""A plan takes a fraction of a second because little is computed for it: how often the costly functions run."""

from collections.abc import Callable

import pytest

from profiles import buffers, schedule
from profiles.packing import pack
from profiles.planner import plan
from profiles.profile_files import load_profile
from profiles.quant_choice import choose
from profiles.request import PlanRequest
from tests.profiles.file_choices import shapes
from tests.support.calls import calls_of

COSTLY: tuple[Callable[..., object], ...] = (schedule.program, schedule._peak, pack)


def work(model: str, machine: str, request: PlanRequest) -> dict[str, int]:
    there = load_profile(machine).machine()
    return calls_of(lambda: choose(shapes(model), there, request), *COSTLY)


@pytest.fixture
def nothing_known() -> None:
    """Forget what other tests have replayed."""
    buffers.programs_of.cache_clear()


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(
    ("model", "machine", "most"),
    [
        ("mistral-small-4", "rtx-4090", (32, 140, 37)),
        pytest.param("mistral-small-4", "2x3090", (60, 700, 56), marks=pytest.mark.slow),
        ("mistral-small-4", "cpu", (3, 30, 0)),
    ],
)
def test_all_types_of_a_model_take_few_replays(model: str, machine: str, most: tuple[int, ...]) -> None:
    """Graphs are replayed once for all types and micro-batches, and bounds rule out most candidates before they are packed."""
    found = work(model, machine, PlanRequest())
    assert all(n <= limit for n, limit in zip(found.values(), most, strict=True)), found


@pytest.mark.usefixtures("nothing_known")
def test_another_context_needs_the_graphs_of_its_own_layouts_only() -> None:
    work("mistral-small-4", "rtx-4090", PlanRequest(n_ctx=8192))
    shape, machine = shapes("mistral-small-4")["Q4_K_M"], load_profile("rtx-4090").machine()
    known = calls_of(lambda: plan(shape, machine, PlanRequest(n_ctx=8192)), *COSTLY)
    longer = calls_of(lambda: plan(shape, machine, PlanRequest(n_ctx=16384)), *COSTLY)
    assert known["program"] == 0
    assert longer["program"] <= 3  # of the layout that it finds, and of one that did not fit
