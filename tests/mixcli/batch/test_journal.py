"""The journal: nothing twice, nothing lost, whatever ends it."""

import errno
import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from mixcli.batch import journal as module
from mixcli.batch.journal import BatchJournal, key_of
from mixcli.errors import InUse, UsageError


@pytest.fixture(autouse=True)
def closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Journals that a test leaves open, as a killed process does."""
    opened: list[BinaryIO] = []
    genuine = module._opened
    monkeypatch.setattr(module, "_opened", lambda path: opened.append(genuine(path)) or opened[-1])
    yield
    for file in opened:
        file.close()


def filled(path: Path, n: int) -> list[str]:
    keys = [key_of("settings", {"n": index}) for index in range(n)]
    journal = BatchJournal(path)
    for index, key in enumerate(keys):
        journal.append(key, index, {"result": index})
    journal.close()
    return keys


def test_what_was_appended_is_found_again(tmp_path: Path) -> None:
    keys = filled(tmp_path / "journal", 5)
    journal = BatchJournal(tmp_path / "journal")
    assert [journal.take(key, place) for place, key in enumerate(keys)] == [{"result": n} for n in range(5)]
    assert journal.take(key_of("settings", {"n": 99}), 99) is None


def test_equal_records_keep_their_own_outcomes_and_a_new_one_shares(tmp_path: Path) -> None:
    journal = BatchJournal(tmp_path / "journal")
    key = key_of("", {"text": "same"})
    journal.append(key, 7, {"result": 1})
    journal.append(key, 3, {"result": 2})
    assert journal.take(key, 7) is None, "what this run computes is not given out again"
    journal.close()
    for _ in range(2):
        again = BatchJournal(tmp_path / "journal")
        assert [again.take(key, place) for place in (1, 3, 7)] == [
            {"result": 1},
            {"result": 2},
            {"result": 1},
        ]
        again.close()
    assert len((tmp_path / "journal").read_text().splitlines()) == 1 + 3, (
        "one line for each record, also for the new one"
    )


def test_the_order_need_not_be_the_inputs(tmp_path: Path) -> None:
    keys = filled(tmp_path / "journal", 300)
    random.Random(3).shuffle(keys)
    journal = BatchJournal(tmp_path / "journal")
    assert all(journal.take(key, place) for place, key in enumerate(keys))


@pytest.mark.parametrize("cut", [1, 2, 17, 60])
def test_a_torn_last_line_is_cut_off_and_written_over(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    keys = filled(path, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    journal = BatchJournal(path)
    assert [journal.take(key, place) is not None for place, key in enumerate(keys)] == [
        True,
        True,
        True,
        False,
    ]
    journal.append(keys[3], 3, {"result": 3})
    journal.close()
    assert path.read_bytes() == whole


def test_a_torn_first_line_is_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(module.HEADER[:9])
    journal = BatchJournal(path)
    assert path.read_bytes() == module.HEADER
    journal.close()


def test_a_line_that_the_disk_has_changed_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal"
    keys = filled(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2][:66] + b"?}}\n" + lines[3])
    journal = BatchJournal(path)
    assert [journal.take(key, place) is not None for place, key in enumerate(keys)] == [False, False, True]
    assert journal.take("0" * 32, 0) is None
    assert "2 lines of" in capsys.readouterr().err


def test_no_changed_bit_becomes_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    key = key_of("settings", {"text": "a"})
    journal = BatchJournal(path)
    journal.append(key, 0, {"result": "ham", "usage": {"prompt_tokens": 5}})
    journal.close()
    raw = path.read_bytes()
    for at in range(len(module.HEADER), len(raw) - 1):
        for bit in (1, 2, 4, 32):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
            journal = BatchJournal(path)
            assert journal.take(key, 0) is None, raw[at:]
            journal._file.close()


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    key = key_of("settings", {"text": "a"})
    path.write_bytes(module.HEADER + f'{{"key": "{key}", "n": 3, "outcome": {{"result": "ä"}}}}\n'.encode())
    journal = BatchJournal(path)
    assert journal.take(key, 3) == {"result": "ä"}
    journal.close()


def test_fields_in_another_order_are_another_question() -> None:
    """An answer has its fields in the order of the schema: reasons before the label, or behind it."""

    def key(*names: str) -> str:
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
        return key_of("model", {"response_format": {"json_schema": {"schema": schema}}, "temperature": 0})

    assert key("reason", "label") != key("label", "reason")
    assert key("reason", "label") == key("reason", "label")
    assert key_of("", {"a": 1, "b": {"c": 2, "d": 3}}) == key_of("", {"b": {"d": 3, "c": 2}, "a": 1})


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work without a line end")
    with pytest.raises(UsageError, match="not a mixcli batch journal"):
        BatchJournal(path)
    assert path.read_text() == "years of work without a line end"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    first = BatchJournal(tmp_path / "journal")
    with pytest.raises(InUse, match="another mixcli batch"):
        BatchJournal(tmp_path / "journal")
    first.close()
    BatchJournal(tmp_path / "journal").close()


@pytest.mark.slow
def test_a_journal_that_its_last_writer_removes_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that kept nothing removes its journal at its end, between the opening and the lock of the next one."""
    path, genuine = tmp_path / "journal", fcntl.flock
    first = BatchJournal(path)

    def late(file: BinaryIO, how: int) -> None:
        if not first._file.closed:
            first.close()
        genuine(file, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    second = BatchJournal(path)
    second.append(key_of("", {"n": 1}), 0, {"result": 1})
    assert key_of("", {"n": 1}) in path.read_text()
    second.close()


def test_memory_does_not_grow_with_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AROUND", 500)
    keys = filled(tmp_path / "journal", 20_000)
    journal = BatchJournal(tmp_path / "journal")
    tracemalloc.start()
    found = sum(
        journal.take(key, place + 17) is not None for place, key in enumerate(keys)
    )  # 17 lines were added in front
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 20_000
    assert peak < 2 << 20


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from mixcli.batch.journal import BatchJournal, key_of
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        journal = BatchJournal(Path(sys.argv[1]))
        for n in range(100):
            journal.append(key_of("", {"n": n}), n, {"result": "x" * 50})
        """
    )
    path = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "OSError" in done.stderr
    lines = path.read_bytes().splitlines(keepends=True)
    assert 3 < len(lines) < 10
    assert all(json.loads(line) for line in lines)
    assert lines[-1].endswith(b"\n")


def test_killed_while_it_writes_it_loses_one_line_at_most(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from mixcli.batch.journal import BatchJournal, key_of
        journal = BatchJournal(Path(sys.argv[1]))
        n = 0
        while True:
            journal.append(key_of("", {"n": n}), n, {"result": "y" * 3000})
            sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
            n += 1
        """
    )
    path = tmp_path / "journal"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(200):
        said = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    journal = BatchJournal(path)
    assert all(journal.take(key_of("", {"n": n}), n) for n in range(said + 1))


def test_a_full_disk_is_named_and_leaves_no_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "out.journal"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match=r".") as raised:
            BatchJournal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert not path.exists()
