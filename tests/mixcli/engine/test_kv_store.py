"""Texts on disk: found by their longest common beginning, checked, bounded, and never a reason to fail."""

import os
from pathlib import Path

from mixcli.engine.kv_store import KvStore

TEXT = list(range(100))


def saved(store: KvStore, tokens: list[int], state: bytes = b"state") -> bool:
    return store.save(tokens, lambda: state)


def test_the_longest_common_beginning_is_found_also_by_the_next_process(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    assert saved(store, TEXT, b"first")
    assert saved(store, [*TEXT[:80], *[7] * 40], b"second")
    for one in (store, KvStore(tmp_path, "key", 1 << 20)):
        entry = one.find([*TEXT[:80], *[7] * 10, 1, 2, 3])
        assert entry is not None
        assert (entry.n_shared, entry.n_tokens) == (90, 120)
        assert one.load(entry) == b"second"
        assert one.find([999, 998]) is None
    assert KvStore(tmp_path, "other", 1 << 20).find(TEXT) is None


def test_the_last_token_of_a_prompt_does_not_count(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT)
    entry = store.find(TEXT)
    assert entry is not None
    assert entry.n_shared == 99


def test_a_longer_text_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT[:70])
    saved(store, TEXT)
    assert len(list(tmp_path.rglob("*.kv"))) == 1
    assert not saved(store, TEXT[:10]), "too short to be worth a file"


def test_the_longest_unused_goes_first_of_any_model(tmp_path: Path) -> None:
    old, young = KvStore(tmp_path, "old", 3000), KvStore(tmp_path, "young", 3000)
    saved(old, TEXT, bytes(800))
    (path,) = tmp_path.rglob("*.kv")
    os.utime(path, (1, 1))
    saved(young, [5] * 100, bytes(800))
    saved(young, [6] * 100, bytes(800))
    assert not path.exists()
    assert len(list(tmp_path.rglob("*.kv"))) == 2
    assert not saved(young, [8] * 100, bytes(3000)), "larger than the whole"
    entry = old.find(TEXT)
    assert entry is not None
    assert old.load(entry) is None, "somebody else removed it: then it is computed"
    assert old.find(TEXT) is None


def test_damaged_files_are_removed_and_strange_ones_left_alone(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT, bytes(500))
    (path,) = tmp_path.rglob("*.kv")
    whole = path.read_bytes()
    for damaged in (
        whole[:-1],
        whole[:200],
        bytes([*whole[:-1], whole[-1] ^ 1]),
        whole[:60] + b"\x01" + whole[61:],
    ):
        path.write_bytes(damaged)
        entry = store.find(TEXT)
        assert entry is not None
        assert store.load(entry) is None
        assert not path.exists()
        store = KvStore(tmp_path, "key", 1 << 20)
        saved(store, TEXT, bytes(500))
    (tmp_path / "key" / "notes.kv").write_bytes(b"hello")
    (tmp_path / "key" / "huge.kv").write_bytes(whole[:40] + b"\xff\xff\xff\xff" + whole[44:])
    assert KvStore(tmp_path, "key", 1 << 20).find(TEXT) is not None


def test_what_a_killed_process_left_is_cleared_away_later(tmp_path: Path) -> None:
    saved(KvStore(tmp_path, "key", 1 << 20), TEXT)
    old, young = tmp_path / "key" / ".unfinished-a", tmp_path / "key" / ".unfinished-b"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    KvStore(tmp_path, "key", 1 << 20)
    assert (old.exists(), young.exists()) == (False, True), "somebody may be writing the young one now"


def test_a_disk_that_says_no_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file where the folder should be")
    assert not saved(KvStore(tmp_path, "key", 1 << 20), TEXT)
