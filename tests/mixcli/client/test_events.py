"""Streams and answers as other servers write them: a real server on loopback that sends given bytes, read by the client of --endpoint."""

import contextlib
import gzip
import json
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixcli.client.completions import choice_of
from mixcli.client.endpoint import EndpointClient
from mixcli.client.events import Events, lines
from mixcli.errors import DoesNotFit, MixcliError, NotReachable
from mixcli.host.protocol.messages import ChatBody
from tests.mixcli.client.conftest import Serve, heard


def chunk(text: Any, reason: str | None = None) -> bytes:
    return json.dumps(
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}
    ).encode()


def data(*events: bytes, end: bytes = b"\n\n") -> bytes:
    return b"".join(b"data: " + event + end for event in events)


HELLO = (chunk("Hel"), chunk("lo"), chunk("", "stop"))
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
}
EVENTS = "Content-Type: text/event-stream\r\n"
STREAMS = {
    "plain": data(*HELLO, b"[DONE]"),
    "no space": data(*HELLO, b"[DONE]").replace(b"data: ", b"data:"),
    "CRLF": data(*HELLO, b"[DONE]", end=b"\r\n\r\n"),
    "CR": data(*HELLO, b"[DONE]", end=b"\r\r"),
    "BOM": b"\xef\xbb\xbf" + data(*HELLO),
    "comments": b": hello\n\n:\n" + data(HELLO[0]) + b": keep-alive\n\n" + data(*HELLO[1:], b"[DONE]"),
    "names and ids": data(*HELLO).replace(b"data:", b"event: chunk\nid: 7\nretry: 10\ndata:"),
    "no blank lines": data(*HELLO, b"[DONE]", end=b"\n"),
    "several lines of data": data(*HELLO).replace(b'"index"', b'\ndata: "index"'),
    "empty data": b"data:\n\ndata: \n\n" + data(*HELLO),
    "no [DONE]": data(*HELLO),
    "no finish_reason": data(*HELLO[:2], b"[DONE]"),
    "no last line end": data(*HELLO)[:-2],
    "[DONE] with a blank": data(*HELLO[:2], b" [DONE] "),
    "empty choices": data(
        b'{"choices": [], "usage": {"prompt_tokens": 3}}',
        *HELLO,
        b'{"choices": [], "usage": null}',
        b"[DONE]",
    ),
    "null everywhere": data(
        b'{"choices": [{"delta": null, "finish_reason": null}], "error": null, "usage": null}', *HELLO
    ),
    "odd types": data(
        b'{"choices": [{"delta": {"content": ""}, "token_ids": 5, "label_probs": []}], "usage": [], "timings": 3}',
        *HELLO,
    ),
    "parts": data(
        chunk([{"type": "text", "text": "Hel"}, {"type": "thinking", "thinking": []}, "lo"]), HELLO[2]
    ),
    "a second answer": data(HELLO[0], chunk("no").replace(b'"index": 0', b'"index": 1'), *HELLO[1:]),
    "unknown fields": b"hello\nfoo: bar\n\n" + data(*HELLO),
    "JSON lines": b"\n".join(HELLO) + b"\n",
    "a whole answer": json.dumps(WHOLE).encode(),
    "a whole answer, indented": json.dumps(WHOLE, indent=2).encode(),
    "a whole answer as an event": data(json.dumps(WHOLE).encode()),
    "ping events": b"event: ping\ndata: {}\n\n" + data(*HELLO),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_read_in_any_dialect(serve: Serve, name: str) -> None:
    assert heard(serve(STREAMS[name], head=EVENTS)) == "Hello"


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "CRLF",
        "CR",
        "BOM",
        "comments",
        "several lines of data",
        "no blank lines",
        "a whole answer, indented",
    ],
)
def test_whole_answers_come_out_of_the_same_bytes_and_byte_by_byte(serve: Serve, name: str) -> None:
    """Who asks for no stream gets one; and where the pieces of the network end does not matter."""
    stream = STREAMS[name]
    answer = serve(stream, head=EVENTS).complete(ChatBody(whole={"messages": []}))
    assert choice_of(answer).text == "Hello"
    pieces = [bytes([byte]) for byte in stream]
    chunked = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    assert heard(serve(*chunked, head=EVENTS + "Transfer-Encoding: chunked\r\n")) == "Hello"


def test_characters_that_are_cut_come_out_whole(serve: Serve) -> None:
    stream = data(chunk("a\ud83d"), chunk("\ude00é"), chunk("\ud83d", "stop"))
    assert heard(serve(stream)) == "a😀é\ufffd"
    raw = data('{"choices": [{"delta": {"content": "日本"}, "finish_reason": "stop"}]}'.encode())
    assert heard(serve(*(bytes([byte]) for byte in raw))) == "日本"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_packed_answers_that_were_not_asked_for(serve: Serve, encoding: str) -> None:
    import zlib

    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(STREAMS["plain"])
    assert heard(serve(packed[:9], packed[9:], head=f"Content-Encoding: {encoding}\r\n")) == "Hello"


def error(text: str = "boom", **more: Any) -> dict[str, Any]:
    return {"error": {"message": text, **more}}


@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        (data(json.dumps(error()).encode()), MixcliError, "boom"),
        (data(b'{"error": "boom"}'), MixcliError, "boom"),
        (data(b'{"object": "error", "message": "boom", "code": 400}'), MixcliError, "boom"),
        (data(b'{"type": "error", "error": {"type": "x", "message": "boom"}}'), MixcliError, "boom"),
        (data(b'{"detail": "boom"}'), MixcliError, "boom"),
        (data(b'{"error": "boom \\ud83d"}'), MixcliError, r"boom \?$"),
        (data(b'{"error": {"code": 7}}'), MixcliError, '"code": 7'),
        (b"event: error\ndata: boom\n\n", MixcliError, "boom"),
        (b'event: error\ndata: {"message": "boom"}\n\n', MixcliError, "boom"),
        (b'{"error": {"message": "boom"}}\n', MixcliError, "boom"),
        (data(json.dumps(error(code="context_length_exceeded")).encode()), DoesNotFit, "boom"),
        (data(json.dumps(error("the maximum context length is 5")).encode()), DoesNotFit, "is 5"),
        (data(b"boom"), MixcliError, "not a JSON object: boom"),
        (data(b"[1]"), MixcliError, r"not a JSON object: \[1\]"),
        (
            data(b'{"choices": [{"delta": {"content": 7}}]}'),
            MixcliError,
            "content .* must be a string, not a number",
        ),
        (b'data: {"choices', NotReachable, "closed the connection during the response"),
        (b"", NotReachable, "closed the connection during the response"),
        (b": " + b"x" * (17 << 20), MixcliError, "a line of more than 16,777,216 bytes"),
    ],
)
def test_what_goes_wrong_in_the_middle_is_told(
    serve: Serve, event: bytes, kind: type[Exception], words: str
) -> None:
    client = serve(data(HELLO[0]), event, head=EVENTS)
    found = []
    with pytest.raises(kind, match=words) as raised:
        for delta in client.chat(ChatBody(whole={"messages": []})):
            found.append(delta.text)
    assert found == ["Hel"], "what came before was shown"
    assert "None" not in str(raised.value)


def test_a_server_that_ignores_max_tokens_is_hung_up_on(serve: Serve) -> None:
    with pytest.raises(MixcliError, match="where 5 tokens were allowed"):
        heard(serve(*[data(chunk("word "))] * 5000), max_tokens=5)


def test_a_server_that_sends_nothing_but_keep_alives_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(1 << 16)
                    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        peer.sendall(b": ping\n\n")
                        time.sleep(0.02)

    monkeypatch.setattr(EndpointClient, "patience", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        client = EndpointClient(f"http://127.0.0.1:{server.getsockname()[1]}", None)
        with pytest.raises(NotReachable, match="only keep-alives for 1 s"):
            heard(client)
        with pytest.raises(NotReachable, match="incomplete"):
            client.complete(ChatBody(whole={"messages": []}))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 9))
def test_lines_do_not_depend_on_the_pieces(raw: bytes, size: int) -> None:
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert list(lines(pieces)) == list(lines([raw]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"data: ",
                b"{",
                b"}",
                b'{"a": 1}',
                b"\n",
                b"\r\n",
                b"[DONE]",
                b"event: error\n",
                b'"',
                b"x",
                b": c\n",
            ]
        ),
        max_size=30,
    )
)
def test_any_stream_is_events_or_a_sentence(pieces: list[bytes]) -> None:
    with contextlib.suppress(MixcliError):
        assert all(isinstance(event, dict) for event in Events(pieces))
