"""What is not text is refused in one sentence, by its first bytes, wherever a text is taken; an input without an end is bounded."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.batch import lines
from mixcli.batch.lines import read_lines
from mixcli.batch.records import open_records
from mixcli.chat.files import attach
from mixcli.errors import UsageError
from mixcli.request import personas
from mixcli.system.stdin import file_texts, read_text
from mixcli.system.text import SAMPLE, not_text

NOISE = bytes(pow(7, n, 257) % 256 for n in range(1, 200)).replace(b"\0", b"\x01")
DATA = {
    "noise": (NOISE, "is not text"),
    "control characters": (b"ab\x01\x02" * 100, "50 % of its first 400 bytes are control characters"),
    "a NUL": (b"some text\0" + b"x" * 100, "is not text: byte 10 is NUL"),
    "another encoding": ("Это не UTF-8, а cp1251. ".encode("cp1251") * 4, "% of its first"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "is an image"),
    "gzip": (b"\x1f\x8b\x08\0", "gunzip"),
    "UTF-16": ("Wörter".encode("utf-16"), "is UTF-16"),
    "an archive": (b"name".ljust(257, b"\0") + b"ustar\0", "is a tar archive"),
    "rich text": (rb"{\rtf1\ansi}", "rich text"),
}


def of_batch(path: Path) -> None:
    with path.open("rb") as file:
        open_records(file, "in.txt")


def of_persona(path: Path) -> None:
    folder = personas.folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.md").write_bytes(path.read_bytes())
    personas.persona("mine")


TAKERS: dict[str, Callable[[Path], object]] = {
    "run -f": lambda path: file_texts([path]),
    "a template": read_text,
    "/file": lambda path: attach(str(path)),
    "a persona": of_persona,
    "batch": of_batch,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("kind", DATA)
def test_each_taker_of_a_text_refuses_it(
    kind: str, taker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, words = DATA[kind]
    monkeypatch.setenv("MIXCLI_HOME", str(tmp_path / "home"))
    (tmp_path / "in.dat").write_bytes(raw)
    if kind == "a NUL" and taker == "batch":
        TAKERS[taker](tmp_path / "in.dat")  # only the record that has it is at fault
        return
    with pytest.raises(UsageError, match=words):
        TAKERS[taker](tmp_path / "in.dat")


def test_text_is_text() -> None:
    for raw in (
        b"",
        b"plain",
        "Größe 東京 🙂".encode(),
        b"caf\xe9 \xff\xfe",
        b"\x1b[1mbold\x1b[0m",
        b"a\tb\f\r\n" * 9,
    ):
        assert not_text(raw) == ""
    cut = ("x" * (SAMPLE - 1) + "é" * 100).encode()
    assert not_text(cut) == "", "a character that the sample's end cuts"
    assert not_text("\ufffd".encode() * 100) == "", "signs for bad bytes are text themselves"


def test_only_the_beginning_of_a_pipe_is_read_before_it_is_refused() -> None:
    """A pipe of random bytes without an end is refused at once."""
    reading, writing = os.pipe()
    code = "from mixcli.system.stdin import piped_text; piped_text()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=reading, stderr=subprocess.PIPE, text=True)
    os.close(reading)
    os.set_blocking(writing, False)
    n_written, waiting = 0, 0
    try:
        while process.poll() is None and waiting < 6000:
            try:
                n_written += os.write(writing, NOISE * 64)
            except BlockingIOError:
                waiting += 1
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.01)
    except (BrokenPipeError, pytest.fail.Exception):  # it has ended
        pass
    os.close(writing)
    _, told = process.communicate(timeout=60)
    assert "the piped text is not text" in told
    assert n_written < 1 << 20


class Endless:
    """The same bytes again and again."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.n_read = 0

    def fileno(self) -> int:
        raise OSError

    def read1(self, size: int = -1, /) -> bytes:
        piece = self.piece[:size] if size > 0 else self.piece
        self.n_read += len(piece)
        return piece


def test_lines_without_an_end_are_a_stream() -> None:
    stream = Endless(b"y\n" * 1000)
    records = open_records(stream, "-").records  # type: ignore[arg-type]
    tracemalloc.start()
    for _ in range(20_000):
        assert next(records).fields["text"] == "y"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 21
    assert stream.n_read < 1 << 17


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "ENDLESS", 1600)
    with pytest.raises(UsageError, match="no end within 1,650 bytes; the limit is 100"):
        next(iter(read_lines(Endless(b"x" * 50), limit=100)))


def test_a_file_without_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text(" \n")
    assert file_texts([tmp_path / "empty"]) == [" "]
    assert f"{tmp_path / 'empty'} has no text" in capsys.readouterr().err
