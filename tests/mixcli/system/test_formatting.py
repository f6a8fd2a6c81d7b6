"""Numbers as people read and write them."""

import time

import pytest

from mixcli.errors import UsageError
from mixcli.system.formatting import count, counted, format_bytes, moment, parse_duration, size_in_bytes
from mixcli.system.stdin import decode
from mixcli.system.text import strip_controls
from quantize.wording import shown


@pytest.mark.parametrize(
    ("text", "value"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86400), ("0", 0), ("-1", -1), ("1.5m", 90), ("7", 7)],
)
def test_times_are_read(text: str, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "m", "five", "5x", "5 m 3", "nan", "inf", "-5", "-1h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid time"):
        parse_duration(text)


def test_sizes_and_counts() -> None:
    assert [format_bytes(n) for n in (12, 4_600, 98_000_000, 28_400_000_000)] == [
        "12 B",
        "4.6 kB",
        "98.0 MB",
        "28.4 GB",
    ]
    assert [count(n) for n in (7, 46_702_792_704, 134_515_008, 12_879_425_536)] == [
        "7",
        "46.7B",
        "135M",
        "12.9B",
    ]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xef\xbb\xbfplain", "plain"),
        (b"a\r\nb", "a\nb"),
        ("schön 日本 🙂".encode(), "schön 日本 🙂"),
        (b"a\0b", "a\ufffdb"),
        ("\ufffd".encode(), "\ufffd"),
    ],
)
def test_bytes_from_a_pipe_become_text(raw: bytes, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert decode(raw) == text


def test_bytes_that_are_no_text_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert decode(b"a\xff\xfeb") == "a\ufffd\ufffdb"
    assert "2 bytes" in capsys.readouterr().err


def test_controls_are_stripped_one_by_one() -> None:
    """A sequence that arrives in pieces loses its control characters too."""
    pieces = ["\x1b", "]52;c;aGk=", "\x07", "\x1b[3", "1mred\x9b0m", "tab\tand\nline"]
    assert "".join(map(strip_controls, pieces)) == "]52;c;aGk=[31mred0mtab\tand\nline"


def test_moments_are_shown_in_the_local_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment("2026-01-31T20:05:59.123456+00:00") == "2026-02-01 05:05"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("n", "noun", "text"), [(0, "byte", "0 bytes"), (1, "byte", "1 byte"), (2048, "byte", "2,048 bytes")]
)
def test_a_number_has_its_noun(n: int, noun: str, text: str) -> None:
    assert counted(n, noun) == text


def test_values_of_files_are_shown_as_files_have_them() -> None:
    assert [shown(value) for value in (True, None, "a", 1.5, [1, "b"], b"x")] == [
        "true",
        "null",
        "'a'",
        "1.5",
        '[1, "b"]',
        "b'x'",
    ]
    assert shown("x" * 100) == "'" + "x" * 36 + "..."


def test_a_time_has_a_limit() -> None:
    with pytest.raises(UsageError, match="longer than 876,000 h, the limit"):
        parse_duration("99999999999h")


@pytest.mark.parametrize(("text", "n_bytes"), [("0", 0), ("24GiB", 24 << 30), ("24 gb", 24 * 10**9), ("1.5m", 3 << 19), ("24000000000", 24 * 10**9), ("24B", 24)])  # fmt: skip
def test_a_size_has_a_unit_or_is_bytes(text: str, n_bytes: int) -> None:
    assert size_in_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["24", "24.5", "1", "1048575"])
def test_a_size_whose_unit_was_forgotten_is_not_taken_for_bytes(text: str) -> None:
    with pytest.raises(UsageError, match=f"a number without a unit is bytes; use {text}GiB"):
        size_in_bytes(text)
