"""Notes that were edited by hand, or are invalid: a search for hosts and ports skips them without waiting."""

import json
import os
from pathlib import Path

import pytest

from mixcli.host.protocol.host_record import HostRecord, records
from mixcli.host.protocol.port_record import PortRecord, port_records

ODD: dict[str, object] = {
    "a process in words": {"pid": "1"},
    "a process that is true": {"pid": True},
    "a huge process": {"pid": 1 << 80},
    "a path as a number": {"path": 7},
    "no label": {"label": None},
    "a list": {"socket": []},
    "one field more": {"more": 1},
}


@pytest.mark.parametrize("case", ODD)
def test_a_note_with_odd_fields_is_read_over(tmp_path: Path, case: str) -> None:
    sound = HostRecord.mine(tmp_path / "a.sock", "demo", tmp_path / "a.gguf")
    sound.write()
    odd = {**sound._asdict(), **ODD[case]}  # type: ignore[dict-item]
    (tmp_path / "odd.host").write_text(json.dumps(odd))
    assert list(records(tmp_path)) == [sound]


@pytest.mark.parametrize("raw", [b"", b"\0" * 99, b"[" * 60_000, b'{"pid": 1', b"[1]", b"7", b"\xff\xfe{"])
def test_what_is_no_note_is_read_over(tmp_path: Path, raw: bytes) -> None:
    sound = PortRecord.mine("http://127.0.0.1:1/v1", "127.0.0.1", 1, "key")
    sound.write(tmp_path)
    (tmp_path / "odd.port").write_bytes(raw)
    os.mkfifo(tmp_path / "pipe.port")
    (tmp_path / "folder.port").mkdir()
    assert list(port_records(tmp_path)) == [sound]
