"""Answers of other servers that are errors: statuses, redirects, pages, broken heads, and how long each says to wait."""

import contextlib
import socket
import threading

import pytest

from mixcli.client.completions import choice_of
from mixcli.client.endpoint import EndpointClient
from mixcli.client.refusal import seconds_of
from mixcli.errors import Busy, DoesNotFit, MixcliError, NotReachable, UsageError
from mixcli.host.protocol.messages import ChatBody
from tests.mixcli.client.conftest import Serve, heard

PAGE = b"<!doctype html><html><title>Welcome</title></html>"


@pytest.mark.parametrize(
    ("body", "head", "kind", "words"),
    [
        (PAGE, "Content-Type: text/html\r\n", MixcliError, "web page"),
        (b"", "", MixcliError, "empty|closed the connection"),
        (b"OK", "", MixcliError, "OK|closed the connection"),
        (b"[]", "", MixcliError, "not a JSON object|closed the connection"),
        (b'{"choices": []}', "", MixcliError, "not a chat completion|closed the connection"),
        (b"{" * 100_000, "", MixcliError, "not JSON|closed the connection"),
        (b"x" * 100, "Content-Encoding: br\r\n", MixcliError, "unsupported Content-Encoding br"),
        (b"x" * 100, "Content-Encoding: gzip\r\n", MixcliError, "is not valid gzip"),
        (b"data: [DONE]\n\n", "", MixcliError, "no choices"),
        (b'{"detail": "no"}', "", MixcliError, "no"),
    ],
)
def test_an_answer_that_is_none_blames_the_server(
    serve: Serve, body: bytes, head: str, kind: type[Exception], words: str
) -> None:
    client = serve(body, head=head)
    with pytest.raises(kind, match=words):
        heard(client)
    with pytest.raises(kind, match=words):
        choice_of(client.complete(ChatBody(whole={"messages": []})))


def test_an_address_may_be_that_of_the_route() -> None:
    for path in ("", "/", "/v1", "/v1/", "/v1/chat/completions"):
        assert EndpointClient(f"http://127.0.0.1:1{path}", None).prefix == ""
    assert EndpointClient("http://127.0.0.1:1/api/v1", None).prefix == "/api"


@pytest.mark.parametrize(
    ("status", "head", "body", "kind", "words"),
    [
        (
            "301 Moved",
            "Location: https://u:secret@new.example/v1?key=secret\r\n",
            b"",
            UsageError,
            "redirect to https://new.example/v1;",
        ),
        ("302 Found", "Location: http://[\r\n", b"", UsageError, "another address"),
        ("307 Temporary", "", b"", UsageError, "another address"),
        ("400 Bad", "", b'{"error": {"message": "bad", "code": null}}', UsageError, "^bad$"),
        ("400 Bad", "", b'{"error": {"message": null}}', UsageError, "returned an error"),
        (
            "400 Bad",
            "",
            b'{"error": {"message": "This model\'s maximum context length is 8192 tokens"}}',
            DoesNotFit,
            "8192",
        ),
        (
            "400 Bad",
            "",
            b'{"error": {"message": "x", "type": "exceed_context_size_error", "n_ctx": 5}}',
            DoesNotFit,
            "x",
        ),
        ("400 Bad", "", b'{"object": "error", "message": "maximum context length is 5"}', DoesNotFit, "5"),
        ("401 No", "", b"", NotReachable, "returned 401 No"),
        ("403 No", "Content-Type: text/html\r\n", PAGE, NotReachable, "returned 403 No, with a web page"),
        (
            "404 Not Found",
            "",
            b'{"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}',
            UsageError,
            "`x` does not",
        ),
        ("404 Not Found", "", b'{"detail": "Not Found"}', UsageError, "Not Found"),
        ("413 Too Large", "", PAGE, DoesNotFit, "413"),
        (
            "422 No",
            "",
            b'{"detail": [{"loc": ["body", "top_p"], "msg": "too big"}]}',
            UsageError,
            "body.top_p: too big",
        ),
        ("422 No", "", b'{"message": "nope"}', UsageError, "nope"),
        ("429 Slow", "Retry-After: 7\r\n", b'{"error": {"message": "slow"}}', Busy, "slow"),
        ("429 Slow", "", b'{"error": {"message": "pay", "code": "insufficient_quota"}}', NotReachable, "pay"),
        ("500 Oops", "", b"Traceback: x\nmore", MixcliError, "returned 500 Oops: Traceback: x$"),
        ("500 Oops", "", b"\xff\xfe", MixcliError, "500 Oops"),
        ("502 Bad Gateway", "", PAGE, Busy, "502 Bad Gateway, with a web page"),
        ("503 Busy", "", b'{"error": "loading"}', Busy, "loading"),
        ("500 Oops", "", b"[" * 100_000, MixcliError, "500"),
        ("400 Bad", "", b'{"error": {"message": "x", "exit_code": [1]}}', UsageError, "x"),
    ],
)
def test_refusals(
    serve: Serve, status: str, head: str, body: bytes, kind: type[MixcliError], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        serve(body, head=head, status=status).complete(ChatBody(whole={"messages": []}))
    assert type(raised.value) is kind
    assert "secret" not in str(raised.value)
    assert "None" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("0", 0.1, 0.1),
        ("-5", 0.1, 0.1),
        ("99999999999", 60, 60),
        ("inf", 60, 60),
        ("nan", 1, 1),
        ("soon", 1, 1),
        ("", 1, 1),
        (None, 1, 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.1, 0.1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60, 60),
        ("Fri, 99 Foo 9999", 1, 1),
    ],
)
def test_retry_after_in_every_form(said: str | None, least: float, most: float) -> None:
    assert least <= seconds_of(said) <= most


@pytest.mark.parametrize(
    "url",
    [
        "http://[",
        "http://a..b",
        "http://x:99999",
        "http://x y/",
        "http://x/ä",
        "http://\x00",
        "x",
        "http://",
        "http://h/?q",
        "http://" + "a" * 300,
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="not a valid server address"):
        EndpointClient(url, None)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200,
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
    ],
)
def test_a_head_that_is_no_http_is_not_reachable(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_raw, args=(server, head), daemon=True).start()
        with pytest.raises(NotReachable, match="closed the connection before the response"):
            EndpointClient(f"http://127.0.0.1:{server.getsockname()[1]}", None).complete(
                ChatBody(whole={"messages": []})
            )


def _raw(server: socket.socket, head: bytes) -> None:
    with contextlib.suppress(OSError):
        peer, _ = server.accept()
        with peer:
            peer.recv(1 << 16)
            peer.sendall(head)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1 << 16)
