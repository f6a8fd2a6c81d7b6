"""The books of the KV cache, held against a plain model of what llama.cpp does with the operations."""

from collections import defaultdict

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from mixcli.engine.prefix_cache import Copy, PrefixCache, Save, Truncate
from mixcli.engine.token_tree import common_prefix

N_CELLS, N_SLOTS = 64, 6


class Cells:
    """llama.cpp's unified cache in miniature: cells with a token, a position, and the sequences that they belong to."""

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, set[int]]] = []
        self.saved: list[tuple[int, ...]] = []

    def apply(self, cache: PrefixCache) -> None:
        for operation in cache.take_operations():
            match operation:
                case Copy(source, target, n_tokens):
                    assert not self.tokens(target), "a target must be empty"
                    for _, position, owners in self.cells:
                        if source in owners and position < n_tokens:
                            owners.add(target)
                case Truncate(slot, n_tokens):
                    for _, position, owners in self.cells:
                        if position >= n_tokens:
                            owners.discard(slot)
                    self.cells = [cell for cell in self.cells if cell[2]]
                case Save(slot, tokens):
                    assert self.tokens(slot) == list(tokens), "saved before it is cut"
                    self.saved.append(tokens)

    def decode(self, slot: int, tokens: list[int]) -> None:
        start = len(self.tokens(slot))
        for i, token in enumerate(tokens):
            self.cells.append((token, start + i, {slot}))

    def tokens(self, slot: int) -> list[int]:
        return [token for token, _, owners in sorted(self.cells, key=lambda cell: cell[1]) if slot in owners]


tokens_ = st.lists(st.integers(0, 2), min_size=1, max_size=24)


class Books(RuleBasedStateMachine):
    """Admit, extend, truncate, retain, release, fork in any order: the books always say what the cells hold."""

    slots = Bundle("slots")

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.cells = PrefixCache(N_CELLS, N_SLOTS), Cells()
        self.live: dict[int, list[int]] = {}
        self.retained_texts: dict[int, list[int]] = {}

    @rule(target=slots, tokens=tokens_)
    def admit(self, tokens: list[int]) -> int | None:
        known = max(
            (common_prefix(self.cells.tokens(slot), tokens[:-1]) for slot in range(N_SLOTS)), default=0
        )
        assert self.cache.match(tokens) == known
        found = self.cache.admit(tokens)
        if found is None:
            assert len(self.live) == N_SLOTS
            return None
        slot, n = found
        self.cells.apply(self.cache)
        assert self.cells.tokens(slot) == tokens[:n]
        assert n == known or len(self.live) + 1 == N_SLOTS
        self.live[slot] = tokens[:n]
        rest = tokens[n:]
        if not self.cache.make_room(len(rest)):
            self.cache.release(slot)
            del self.live[slot]
            self.cells.apply(self.cache)
            return None
        self.cells.apply(self.cache)
        self.cells.decode(slot, rest)
        self.cache.extend(slot, rest)
        self.live[slot] = list(tokens)
        return slot

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tokens=tokens_)
    def extend(self, data: st.DataObject, tokens: list[int]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        if self.cache.make_room(len(tokens)):
            self.cells.apply(self.cache)
            self.cells.decode(slot, tokens)
            self.cache.extend(slot, tokens)
            self.live[slot] += tokens

    @precondition(lambda self: self.live)
    @rule(data=st.data(), n=st.integers(0, 30))
    def truncate(self, data: st.DataObject, n: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        self.cache.truncate(slot, n)
        del self.live[slot][n:]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), how=st.sampled_from(["retain", "save", "prefix", "release"]))
    def end(self, data: st.DataObject, how: str) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        del self.live[slot]
        match how:
            case "release":
                self.cache.release(slot)
            case "prefix":
                self.cache.retain_prefix(slot, 5)
            case _:
                self.cache.retain(slot, save=how == "save")

    @precondition(lambda self: self.live)
    @rule(data=st.data(), n=st.integers(1, 4))
    def fork(self, data: st.DataObject, n: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        taken = self.cache.fork(slot, n)
        self.cells.apply(self.cache)
        assert len(taken) == min(n, N_SLOTS - len(self.live))
        for one in taken:
            assert self.cells.tokens(one) == self.live[slot]
        self.cache.release_forks(taken)

    @invariant()
    def books_are_true(self) -> None:
        self.cells.apply(self.cache)
        assert self.cache.n_used == len(self.cells.cells) <= N_CELLS
        for slot, tokens in self.live.items():
            assert self.cells.tokens(slot) == tokens == self.cache.tokens(slot)
            assert self.cache.length(slot) == len(tokens)
        held = {slot for _, _, owners in self.cells.cells for slot in owners}
        assert len(held - self.live.keys()) <= self.cache.n_retained
        for save in self.cache.to_save():
            assert self.cells.tokens(save.slot) == list(save.tokens)


Books.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


def cache_with(
    texts: dict[str, list[int]], n_cells: int = 100, n_slots: int = 8
) -> tuple[PrefixCache, dict[str, int]]:
    cache, slots = PrefixCache(n_cells, n_slots), {}
    for name, tokens in texts.items():
        found = cache.admit(tokens)
        assert found is not None
        slots[name], n = found
        cache.extend(slots[name], tokens[n:])
    return cache, slots


def test_a_common_beginning_is_held_once() -> None:
    cache, _ = cache_with({"a": [1, 2, 3, 4], "b": [1, 2, 3, 9, 9], "c": [1, 2, 7]})
    assert cache.n_used == 4 + 2 + 1


def test_the_longest_prefix_is_found_where_texts_were_extended_alike() -> None:
    cache, slots = cache_with({"a": [2], "b": [2, 0, 2], "c": [2]})
    cache.extend(slots["a"], [0, 0])
    cache.extend(slots["c"], [0, 2, 0, 5])
    assert cache.match([2, 0, 0, 9]) == 3
    assert cache.match([2, 0, 2, 9]) == 3
    assert cache.match([2, 0, 2, 0, 9]) == 4
    slot, n = cache.admit([2, 0, 2, 7]) or (-1, 0)  # cuts one of the branches that begin alike
    cache.extend(slot, [7])
    assert n == 3
    assert cache.match([2, 0, 2, 0, 9]) == 4
    assert cache.match([2, 0, 2, 7, 9]) == 4


def test_the_next_turn_takes_the_place_of_the_last() -> None:
    cache, slots = cache_with({"turn": [1, 2, 3]})
    cache.retain(slots["turn"], save=True)
    slot, n = cache.admit([1, 2, 3, 4, 5]) or (-1, 0)
    assert n == 3
    cache.extend(slot, [4, 5])
    cache.retain(slot, save=True)
    assert [save.tokens for save in cache.to_save()] == [(1, 2, 3, 4, 5)]
    assert cache.n_retained == 1


def test_the_longest_unused_is_evicted_first_and_live_ones_never() -> None:
    cache, slots = cache_with({"old": [1] * 20, "young": [2] * 20, "live": [3] * 20}, n_cells=64)
    cache.retain(slots["old"])
    cache.retain(slots["young"])
    cache.release(cache.admit([1] * 20)[0])  # type: ignore[index]  # somebody used the old one: now it is the younger
    assert cache.make_room(20)
    assert (cache.match([1] * 20), cache.match([2] * 20)) == (19, 0)
    assert not cache.make_room(45)
    assert cache.match([1] * 20) == 19, "nothing is evicted in vain"
    assert cache.make_room(44)
    assert cache.match([3] * 20) == 19


def test_only_what_others_begin_with_is_kept_of_a_batch() -> None:
    instruction = [7] * 30
    cache, slots = cache_with({name: [*instruction, *[i] * 5] for i, name in enumerate("abc")})
    for slot in slots.values():
        cache.retain_prefix(slot, 35)
    assert (cache.n_retained, cache.n_used) == (1, 30)


def test_a_lonely_prompt_is_kept_whole() -> None:
    cache, slots = cache_with({"a": [1, 2, 3, 4, 5, 6]})
    cache.retain_prefix(slots["a"], 4)
    assert cache.n_used == 4


@pytest.mark.parametrize(
    ("first", "second", "n"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1], [2], 0),
        ([1, 2, 3], [1, 2, 4], 2),
        ([1, 2], [1, 2, 3], 2),
        ([5] * 99 + [1], [5] * 99 + [2], 99),
    ],
)
def test_common_prefix(first: list[int], second: list[int], n: int) -> None:
    assert common_prefix(first, second) == n


def test_what_was_evicted_by_a_slot_is_saved_first() -> None:
    owners: defaultdict[str, int] = defaultdict(int)
    cache, slots = cache_with({"a": [1, 2, 3], "b": [4, 5]}, n_slots=2)
    cache.retain(slots["a"], save=True)
    cache.retain(slots["b"])
    cache.take_operations()
    cache.admit([9, 9])
    for operation in cache.take_operations():
        owners[type(operation).__name__] += 1
    assert owners == {"Save": 1, "Truncate": 1}
