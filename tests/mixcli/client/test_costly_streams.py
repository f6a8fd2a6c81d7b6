"""Streams that were made to cost: a megabyte of line ends, pieces that are never whole, events without an end. The client reads on in no time, or gives up."""

import pytest

from mixcli.client import events, openai
from mixcli.client.events import Events, parsed
from mixcli.errors import MixcliError
from tests.mixcli.client.conftest import Serve, heard
from tests.support.costly import runs

DONE = b'{"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "text",
    [
        'b"{" + b"\\n" * 1_000_000',
        'b"{" + b"\\n}x" * 300_000',
        'b"data: [" + b"\\ndata: [" * 300_000',
        'b"event: e\\ndata: {" + b"\\ndata:" * 1_000_000',
    ],
    ids=["blank lines", "braces", "brackets", "empty data"],
)
def test_what_never_becomes_json_takes_no_time(text: str) -> None:
    code = f"""
from mixcli.client.events import Events
try:
    print(list(Events([{text}])))
except Exception as error:
    print(type(error).__name__, error)
"""
    assert runs(code) in ("[]", "MixcliError the server's response has more than 1,048,576 lines; truncated")


def test_a_response_of_endless_lines_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_LINES", 1000)
    for text in (b"{" + b"\n" * 1002, b"data:\n" * 1002):
        with pytest.raises(MixcliError, match="more than 1,000 lines"):
            list(Events([text]))


def test_json_of_many_lines_is_read_at_the_end_also_where_it_was_looked_at_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "MAX_READ", 0)
    text = b'{\n"choices": [\n{},\n{\n}\n]\n}'
    assert list(Events([text + b"\n"])) == [{"choices": [{}, {}]}]
    lines = b"".join(b"data: " + line + b"\n" for line in text.split(b"\n"))
    assert list(Events([lines + b"\n"])) == [{"choices": [{}, {}]}]


def test_events_without_text_come_to_an_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = b'data: {"choices": [{"delta": {}}]}\n\n'
    monkeypatch.setattr(openai, "MAX_SILENT", 1000)
    assert heard(serve(silent * 1000, b"data: " + DONE + b"\n\n")) == "x"
    with pytest.raises(MixcliError, match="more than 1,000 events without text"):
        heard(serve(silent * 1001, b"data: " + DONE + b"\n\n"))


def test_json_that_would_fill_the_memory_is_not_read() -> None:
    with pytest.raises(
        MixcliError, match="8,400,002 objects, lists and texts; more than 8,388,608 are not read"
    ):
        parsed(b"[" + b"{}," * 8_400_000 + b"{}]")
