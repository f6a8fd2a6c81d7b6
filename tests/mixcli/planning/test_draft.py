"""A draft model is planned beside the large one where the two are faster together; else the plan says why it stays off."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.errors import UsageError
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.planning.draft import with_draft
from mixcli.planning.load_options import LoadOptions
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import StoredModel
from profiles.planner import plan
from profiles.profile_files import load_profile
from profiles.request import PlanRequest
from tests.support import small_gguf

Planned = Callable[[str, str, str], tuple[LoadPlan, LoadPlan]]


@pytest.fixture
def planned(home: Path, tmp_path: Path) -> Planned:
    """Plan a large model alone and with a small one, both of true shapes in Q4_K_M, for a profile."""

    def file(name: str) -> Path:
        path = tmp_path / f"{name}.gguf"
        header, size = small_gguf.large(name, "Q4_K_M")
        with path.open("wb") as out:
            out.write(header)
            out.truncate(size)
        return path

    def plans(large: str, small: str, profile: str) -> tuple[LoadPlan, LoadPlan]:
        stored = StoredModel(file(large))
        shape, machine = shape_of(header_of(stored.parts)), load_profile(profile).machine()
        request = PlanRequest(n_ctx=4096)
        alone = LoadPlan(plan(shape, machine, request).placement)
        options = LoadOptions(request, profile, draft=str(file(small)))
        return alone, with_draft(alone, stored, shape, machine, options)

    return plans


def test_a_dense_model_on_a_card_is_faster_with_a_draft(planned: Planned) -> None:
    alone, both = planned("codestral", "mistral", "rtx-4090")
    assert both.draft is not None
    assert both.draft.placement.n_ctx == alone.placement.n_ctx
    assert both.draft.placement.n_sequences == 1
    assert both.smaller == alone, "where memory runs out, the large model is loaded alone"
    assert "mistral.gguf: about 6" in both.reasons[-1]
    assert LoadPlan.from_data(both.to_data()) == replace(both, reasons=())


@pytest.mark.parametrize(
    ("large", "small", "profile", "why"),
    [
        ("codestral", "mistral", "cpu", "is off, because no gain is expected: about 3.0"),
        ("mixtral-8x22b", "mistral", "rtx-4090", "is off: both models together do not fit"),
    ],
)
def test_where_it_does_not_pay_it_stays_off_and_says_so(
    planned: Planned, large: str, small: str, profile: str, why: str
) -> None:
    alone, both = planned(large, small, profile)
    assert both == replace(alone, reasons=both.reasons)
    assert why in both.reasons[-1]


@pytest.mark.parametrize(
    ("large", "small", "message"),
    [
        ("mixtral", "mistral", "has a different vocabulary from .*; remove --draft"),
        ("mistral", "codestral", "is not smaller than .*use a smaller model"),
    ],
)
def test_a_model_that_cannot_draft_is_refused(planned: Planned, large: str, small: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(large, small, "rtx-4090")
