"""Texts on disk: found by their longest common beginning, checked, bounded, and never a reason to fail."""

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from mixcli.engine.engine import Engine
from mixcli.engine.kv_store import KvEntry, KvStore
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Request
from mixcli.errors import UsageError
from mixcli.host.kv_location import file_identity, open_store
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement
from tests.support.models import PLACEMENT, finish

TEXT = list(range(100))


def saved(store: KvStore, tokens: list[int], state: bytes = b"state") -> bool:
    """Save as the engine does, with a stand-in for llama.cpp's writer, and wait for the disk."""

    def write(path: Path) -> bool:
        head = struct.pack("<III", 0x67677371, 2, len(tokens))
        path.write_bytes(head + np.asarray(tokens, np.int32).tobytes() + state)
        return True

    done = store.save(tokens, lambda: len(state), write)
    store.flush()
    return done


def found(store: KvStore, tokens: list[int]) -> KvEntry:
    entry = store.find(tokens)
    assert entry is not None
    return entry


def test_the_longest_common_beginning_is_found_also_by_the_next_process(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    assert saved(store, TEXT, b"first")
    assert saved(store, [*TEXT[:80], *[7] * 40], b"second")
    for one in (store, KvStore(tmp_path, "key", 1 << 20)):
        entry = found(one, [*TEXT[:80], *[7] * 10, 1, 2, 3])
        assert (entry.n_shared, entry.n_tokens) == (90, 120)
        assert one.check(entry)
        assert one.find([999, 998]) is None
    assert KvStore(tmp_path, "other", 1 << 20).find(TEXT) is None


def test_an_error_in_the_thread_of_the_store_is_the_last_of_one_text_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def torn() -> None:
        raise ValueError("truncated")

    store = KvStore(tmp_path, "key", 1 << 20)
    store._put(torn)
    assert saved(store, TEXT)
    assert found(store, TEXT).n_tokens == len(TEXT)
    assert "ValueError: truncated" in capfd.readouterr().err


def test_the_last_token_of_a_prompt_does_not_count(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT)
    assert found(store, TEXT).n_shared == 99


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
    entry = found(old, TEXT)
    assert not old.check(entry), "somebody else removed it: then it is computed"
    assert old.find(TEXT) is None


def test_the_size_is_asked_before_anything_is_written(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 3000)

    def never(_path: Path) -> bool:
        raise AssertionError("a state that is too large was written")

    assert not store.save(TEXT, lambda: 3000, never)
    assert not KvStore(tmp_path, "key", 1 << 60).save(TEXT, lambda: 1 << 58, never), "more than the disk has"
    assert not list(tmp_path.rglob("*.kv"))


@pytest.mark.parametrize("damage", ["cut", "head", "state", "tokens", "seal", "grown", "empty"])
def test_damaged_files_are_removed(tmp_path: Path, damage: str) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT, bytes(500))
    (path,) = tmp_path.rglob("*.kv")
    whole = bytearray(path.read_bytes())
    if at := {"state": 600, "tokens": 60, "seal": len(whole) - 1}.get(damage):
        whole[at] ^= 1
    size = {"cut": len(whole) - 1, "head": 5, "empty": 0}.get(damage, len(whole))
    path.write_bytes(bytes(whole[:size]) + b"x" * (damage == "grown"))
    assert not store.check(found(store, TEXT))
    assert not path.exists()


def test_a_file_of_another_model_does_not_check(tmp_path: Path) -> None:
    saved(KvStore(tmp_path, "one", 1 << 20), TEXT)
    (path,) = tmp_path.rglob("*.kv")
    (tmp_path / "other").mkdir()
    path.rename(tmp_path / "other" / path.name)
    other = KvStore(tmp_path, "other", 1 << 20)
    assert not other.check(found(other, TEXT))


def test_strange_files_are_left_alone(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 1 << 20)
    saved(store, TEXT, bytes(500))
    (path,) = tmp_path.rglob("*.kv")
    whole = path.read_bytes()
    own = tmp_path / "key"
    (own / "notes.kv").write_bytes(b"hello")
    (own / "huge.kv").write_bytes(whole[:8] + b"\xff\xff\xff\xff" + whole[12:])
    (own / "link.kv").symlink_to("/dev/zero")
    os.mkfifo(own / "fifo.kv")
    (own / "folder.kv").mkdir()
    (own / "gone.kv").symlink_to("nowhere")
    assert found(KvStore(tmp_path, "key", 1 << 20), TEXT).path == path
    assert saved(KvStore(tmp_path, "key", 1 << 20), [5] * 100)


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
    store = KvStore(tmp_path, "torn", 1 << 20)

    def torn(path: Path) -> bool:
        path.write_bytes(b"half")
        return True

    def refused(_path: Path) -> bool:
        raise OSError(28, "No space left on device")

    assert not store.save(TEXT, lambda: 5000, torn)
    assert not store.save(TEXT, lambda: 500, refused)
    assert not list((tmp_path / "torn").iterdir())


def test_two_hosts_at_once(tmp_path: Path) -> None:
    def fill(first: int) -> None:
        store = KvStore(tmp_path, "key", 20_000)
        for i in range(40):
            saved(store, [first + i] * 100, bytes(500))
            if (entry := store.find([first + i] * 101)) is not None:
                store.check(entry)

    threads = [threading.Thread(target=fill, args=(1000 * i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = list(tmp_path.rglob("*.kv"))
    assert left
    assert sum(path.stat().st_size for path in left) <= 22_000
    last = KvStore(tmp_path, "key", 20_000)
    assert all(last.check(KvEntry(path, (), 0)) for path in left)


@pytest.mark.parametrize("said", ["-1", "much", "1e9", "9" * 400 + "GiB", "4 GiB free"])
def test_a_limit_that_is_none_is_a_sentence(
    smol_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    identity = file_identity(smol_path)
    monkeypatch.setenv("MIXCLI_KV_DISK", said)
    with pytest.raises(UsageError, match="MIXCLI_KV_DISK"):
        open_store(smol_path, identity, Placement())
    for off in ("0", "0GiB"):
        monkeypatch.setenv("MIXCLI_KV_DISK", off)
        assert open_store(smol_path, identity, Placement()) is None
    monkeypatch.setenv("MIXCLI_KV_DISK", "")
    assert open_store(smol_path, identity, Placement()) is not None


def test_a_file_that_was_replaced_while_it_was_loaded_has_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed with the old weights would be kept under the name of the new ones, whose process would read it."""
    monkeypatch.setenv("MIXCLI_KV_DISK", "")
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    for one in (path, other):
        one.write_bytes(b"weights " + one.name.encode())
    loaded = file_identity(path)
    assert open_store(path, loaded, Placement()) is not None
    other.replace(path)
    with pytest.raises(UsageError, match=r"the disk cache is off: model.gguf was replaced"):
        open_store(path, loaded, Placement())
    path.unlink()
    assert file_identity(path) is None
    assert open_store(path, None, Placement()) is None


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1 << 20, 1 << 30])
def test_a_state_is_never_in_memory_as_a_whole(smol: Model, tmp_path: Path, limit: int) -> None:
    """Too large a state is not copied at all, another one goes to the file piece by piece."""
    store = KvStore(tmp_path, "key", limit)
    engine = Engine(smol, Context(smol, PLACEMENT), store)
    engine.add(Request("r", tuple(range(5, 805)), SamplingParams(max_tokens=1), persist=True))
    finish(engine)
    size = engine._context.state_size(0) or max(engine._context.state_size(i) for i in range(4))
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    engine.close()
    assert size > 15 << 20
    assert memory("VmHWM") - before < size / 3
    assert len(list(tmp_path.rglob("*.kv"))) == (limit > size)


def test_a_large_file_is_removed_beside_who_needs_its_room(tmp_path: Path) -> None:
    store = KvStore(tmp_path, "key", 3000)
    saved(store, TEXT, bytes(2000))
    (old,) = tmp_path.rglob("*.kv")
    may_go_on = threading.Event()
    store._put(may_go_on.wait)
    assert store.save([5] * 100, lambda: 2000, lambda path: bool(path.write_bytes(bytes(2412))))
    assert not old.exists()
    assert old.with_name(f".unfinished-{old.name}").exists(), "its bytes go later"
    may_go_on.set()
    store.flush()
    assert len(list((tmp_path / "key").iterdir())) == 1


def test_a_text_is_checked_before_the_engine_loads_it(
    smol: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tuple(range(5, 205))
    request = Request("r", prompt, SamplingParams(max_tokens=1), persist=True)
    first = Engine(smol, Context(smol, PLACEMENT), KvStore(tmp_path, "key", 1 << 30))
    first.add(request)
    finish(first)
    first.close()
    store = KvStore(tmp_path, "key", 1 << 30)
    engine = Engine(smol, Context(smol, PLACEMENT), store)
    assert engine.on_disk((1, *prompt)) is None
    check = engine.on_disk(prompt)
    assert check is not None
    assert check()
    assert engine.on_disk(prompt) is None, "once is enough"
    monkeypatch.setattr(store, "_seal", None)  # so nothing can be hashed any more
    engine.add(request)
    _, output = finish(engine)
    assert output.usage is not None
    assert output.usage.n_cached == len(prompt) - 1


def memory(name: str) -> int:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) * 1024
