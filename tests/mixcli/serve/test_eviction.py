"""Which models make room: ledgers and last uses in, names out."""

from hypothesis import given
from hypothesis import strategies as st

from mixcli.serve.eviction import Resident, fits, room, to_unload

LIMITS = {"host": 10, "CUDA0": 8}


def one(name: str, host: int = 0, gpu: int = 0, used: float = 0, **facts: bool) -> Resident:
    return Resident(name, {"host": host, "CUDA0": gpu}, used, **facts)


def names(found: tuple[Resident, ...] | None) -> list[str] | None:
    return None if found is None else sorted(resident.name for resident in found)


def test_what_fits_unloads_nothing() -> None:
    assert to_unload({"host": 4}, LIMITS, [one("a", host=3), one("b", host=3)]) == ()


def test_the_one_that_was_used_longest_ago_goes() -> None:
    loaded = [one("new", host=5, used=9), one("old", host=5, used=1)]
    assert names(to_unload({"host": 4}, LIMITS, loaded)) == ["old"]


def test_an_idle_one_goes_before_a_busy_one_that_was_used_before() -> None:
    loaded = [one("busy", host=5, used=1, is_busy=True), one("idle", host=5, used=9)]
    assert names(to_unload({"host": 4}, LIMITS, loaded)) == ["idle"]
    assert names(to_unload({"host": 9}, LIMITS, loaded)) == ["busy", "idle"]


def test_none_goes_that_need_not() -> None:
    """The oldest is tried first, but where the next one alone is enough, it stays."""
    loaded = [one("small", host=1, used=1), one("large", host=8, used=2)]
    assert names(to_unload({"host": 9}, LIMITS, loaded)) == ["large"]


def test_each_device_counts_for_itself() -> None:
    loaded = [one("on the host", host=9, used=1), one("on the card", gpu=8, used=2)]
    assert names(to_unload({"CUDA0": 2, "host": 1}, LIMITS, loaded)) == ["on the card"]


def test_kept_ones_stay_even_where_nothing_else_helps() -> None:
    loaded = [one("kept", host=6, is_kept=True), one("other", host=4)]
    assert to_unload({"host": 5}, LIMITS, loaded) is None
    assert names(to_unload({"host": 4}, LIMITS, loaded)) == ["other"]
    assert to_unload({"Metal": 1}, LIMITS, []) is None


residents = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.fixed_dictionaries({"host": st.integers(0, 6), "CUDA0": st.integers(0, 6)}),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda resident: resident.name,
)


@given(residents, st.fixed_dictionaries({"host": st.integers(0, 12), "CUDA0": st.integers(0, 9)}))
def test_what_stays_and_the_new_one_fit_and_all_that_goes_is_needed(
    loaded: list[Resident], needs: dict[str, int]
) -> None:
    going = to_unload(needs, LIMITS, loaded)
    kept = [resident for resident in loaded if resident.is_kept]
    assert (going is None) == (not fits(needs, room(LIMITS, kept)))
    if going is None:
        return
    assert not any(resident.is_kept for resident in going)
    stay = [resident for resident in loaded if resident not in going]
    assert fits(needs, room(LIMITS, stay))
    assert not any(fits(needs, room(LIMITS, [*stay, back])) for back in going)
    if any(resident.is_busy for resident in going):
        idle = [resident for resident in loaded if resident.is_busy or resident.is_kept]
        assert not fits(needs, room(LIMITS, idle)), "idle ones alone were not enough"
