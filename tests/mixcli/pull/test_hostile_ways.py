"""Hubs that never end, proxies and settings that cannot work: every wait and every size has an end, and one party is blamed, the right one."""

import gzip
import http.server
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from mixcli.errors import UsageError
from mixcli.pull.hub_errors import Place, redacted, retry_after
from mixcli.pull.retry import RetryPolicy, seconds
from tests.support import hub_server, small_gguf
from tests.support.hub_server import Handler, Seen, StandIn

MIB = 1 << 20
MODEL = small_gguf.gguf(3 * MIB)
NAME, FILE = "org/tiny-GGUF", "tiny.Q4_K_M.gguf"
QUICK = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1", "MIXCLI_PATIENCE": "2"}


@pytest.fixture(autouse=True)
def repo(hub: StandIn) -> None:
    hub.add(NAME, {FILE: MODEL})


def is_info(seen: Seen) -> bool:
    return seen.path.startswith("/api/models/")


def is_head(seen: Seen) -> bool:
    return seen.method == "HEAD"


def is_body(seen: Seen) -> bool:
    return hub_server.is_download(seen) and seen.start > 0


def drip(head: bytes, piece: bytes = b"x", every: float = 0.3) -> Callable[[Handler], bool]:
    """Send a beginning at once, then a piece now and then, for as long as somebody listens."""

    def act(handler: Handler) -> bool:
        handler.close_connection = True
        handler.wfile.write(head)
        try:
            while True:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(every)
        except OSError:
            return True

    return act


def body(content: bytes, **headers: str) -> Callable[[Handler], bool]:
    return lambda handler: handler.reply(
        200, {name.replace("_", "-"): value for name, value in headers.items()}, content
    )


def ranged(said: str, **more: str) -> Callable[[Handler], bool]:
    return lambda handler: handler.reply(206, {"Content-Range": said, **more}, MODEL[:1000])


def _blanks(n_mib: int) -> bytes:
    """Return so many MiB of blanks by gzip, without its end; one is compressed and the others are its copies."""
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    first, more = (stream.compress(b" " * MIB) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + more * (n_mib - 1)


LARGE_INSIDE = _blanks(200)


def large_inside(handler: Handler) -> bool:
    return handler.reply(200, {"Content-Encoding": "gzip"}, LARGE_INSIDE)


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.mark.parametrize(
    ("act", "hits", "code", "words"),
    [
        (drip(b""), is_info, 6, "stopped responding"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), is_info, 6, "stopped responding"),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 500, 0), is_info, 6, "broke"),
        (drip(ENDLESS), is_info, 6, "stopped responding"),
        (drip(ENDLESS, b" " * MIB, 0), is_info, 5, "more than 32 MiB"),
        (drip(b"HTTP/1.1 503 Busy\r\n\r\n", b" " * MIB, 0), is_info, 6, "returned 503"),
        (drip(b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-0/1\r\n\r\n"), is_body, 5, "sends"),
        (body(b"[" * 200_000), is_info, 5, "not return a list of files"),
        (body(b"<html>log in</html>", Content_Type="text/html"), is_info, 5, "login page"),
        (body(b"<html>log in</html>"), is_head, 5, "login page"),
        (large_inside, is_info, 5, "more than 32 MiB"),
        (body(gzip.compress(gzip.compress(b"[]")), Content_Encoding="gzip, gzip"), is_info, 5, "several times"),
        (body(b"no gzip", Content_Encoding="gzip"), is_info, 5, "decompressed"),
        (body(MODEL, Content_Encoding="gzip"), is_body, 5, "requested uncompressed"),
        (ranged("bytes 1-1000/9"), is_body, 5, "its copy of"),
        (ranged("bytes 0-999/*"), is_body, 5, "its copy of"),
        (ranged(""), is_body, 5, "its copy of"),
        (body(MODEL + b"more"), is_body, 5, "its copy of"),
        (hub_server.status(416), is_body, 5, "fewer bytes"),
        (hub_server.status(302), is_body, 5, "returned 302"),
        (hub_server.status(204), is_body, 5, "returned 204"),
        (hub_server.status(302, Location="http://["), is_info, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="http://["), is_head, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="http://["), is_body, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="http://127.0.0.1:99999/x"), is_info, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="http://127.0.0.1:99999/x"), is_head, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="http://127.0.0.1:99999/x"), is_body, 5, "redirects to an invalid address"),
        (hub_server.status(302, Location="file:///etc/passwd"), is_info, 5, "not http"),
        (hub_server.status(302, Location="?"), is_info, 6, "redirects endlessly"),
        (hub_server.status(511), is_info, 6, "requires a login"),
        (hub_server.status(429, Retry_After="9" * 400), is_info, 6, "rate limited"),
    ],
)  # fmt: skip
def test_a_hub_that_means_no_good(
    hub: StandIn,
    pull: Any,
    act: Callable[[Handler], bool],
    hits: Callable[[Seen], bool],
    code: int,
    words: str,
) -> None:
    hub.fault(act, hits, 999)
    begin = time.monotonic()
    done = pull(NAME, "-q", **QUICK)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert words in done.stderr
    assert "None" not in done.stderr
    assert time.monotonic() - begin < 100


def test_a_drip_in_a_download_ends_and_is_kept(hub: StandIn, pull: Any, home: Path) -> None:
    size = len(MODEL)

    def act(handler: Handler) -> bool:
        start = handler.seen.start
        head = f"HTTP/1.1 206 OK\r\nContent-Range: bytes {start}-{size - 1}/{size}\r\nContent-Length: {size - start}\r\n\r\n"
        return drip(head.encode() + MODEL[start : start + 10], b"", 0.3)(handler)

    hub.fault(act, is_body, 999)
    done = pull(NAME, "-q", **QUICK)
    assert (done.returncode, "downloaded data is kept" in done.stderr) == (6, True), done.stderr
    assert list(home.rglob("*.mixcli.incomplete"))
    hub.faults.clear()
    assert pull(NAME, "-q").returncode == 0


def test_retry_after_0_is_no_storm(hub: StandIn, pull: Any) -> None:
    hub.fault(hub_server.status(429, Retry_After="0"), lambda _seen: True, 9999)
    assert pull(NAME, "-q", MIXCLI_PATIENCE="4").returncode == 6
    assert len(hub.log) < 8


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("0", 0, 0),
        pytest.param(formatdate(time.time() + 36_000, usegmt=True), 30_000, 36_001, id="a date to come"),
        pytest.param(formatdate(time.time() - 9999, usegmt=True), 0, 0, id="a date that is over"),
        *(
            (text, None, None)
            for text in ("", "-5", "soon", "500ms", "²", "1e9", "9" * 500, "nan", "Wed, 99 Foo 2026")
        ),
    ],
)
def test_retry_after_in_any_form(value: str, low: float | None, high: float | None) -> None:
    response = httpx2.Response(
        429, headers=[(b"Retry-After", value.encode())], request=httpx2.Request("GET", "http://x")
    )
    found = retry_after(HfHubHTTPError("no", response=response))
    assert found is None if low is None else (found is not None and high is not None and low <= found <= high)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "soon", "1e999"])
def test_a_patience_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MIXCLI_PATIENCE", text)
    with pytest.raises(UsageError, match="MIXCLI_PATIENCE"):
        RetryPolicy(Place("org/x"))
    monkeypatch.setenv("MIXCLI_PATIENCE", " 7 ")
    assert seconds() == 7


# settings


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"HF_ENDPOINT": "huggingface.co"}, "has no scheme"),
        ({"HF_ENDPOINT": "localhost:8080"}, "has no scheme; use https://localhost:8080"),
        ({"HF_ENDPOINT": "http://me:topsecret@127.0.0.1:9"}, "user name or a password"),
        ({"HF_ENDPOINT": "me:topsecret@host"}, "user name or a password"),
        ({"HF_ENDPOINT": "ftp://127.0.0.1"}, "neither http nor https"),
        ({"HF_ENDPOINT": "http://["}, "not a valid URL"),
        ({"HF_ENDPOINT": "http://127.0.0.1:99999"}, "not a valid URL"),
        ({"HF_ENDPOINT": "http://"}, "HF_ENDPOINT"),
        ({"HF_ENDPOINT": "http://a b"}, "not a valid URL"),
        ({"HF_ENDPOINT": "http://127.0.0.1/?topsecret"}, "not a valid URL"),
        ({"HF_HUB_ETAG_TIMEOUT": "soon"}, "HF_HUB_ETAG_TIMEOUT"),
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "-1"}, "HF_HUB_DOWNLOAD_TIMEOUT"),
        ({"HF_TOKEN": "hf_topsécret"}, "the token in HF_TOKEN has characters"),
        ({"HF_TOKEN": "hf_top\nsecret"}, "the token in HF_TOKEN has characters"),
        ({"HF_TOKEN": "hf_top secret"}, "the token in HF_TOKEN has characters"),
        ({"HF_TOKEN": "hf_topsecret" * 9999}, "119,988 characters"),
        ({"NO_PROXY": "", "HTTP_PROXY": "socks5://me:topsecret@127.0.0.1:1080"}, "SOCKS is not installed"),
        ({"NO_PROXY": "", "ALL_PROXY": "socks5h://127.0.0.1:1080"}, "ALL_PROXY names a SOCKS proxy"),
        ({"NO_PROXY": "", "HTTP_PROXY": "http://127.0.0.1:99999"}, "HTTP_PROXY is not a valid proxy address"),
        ({"NO_PROXY": "", "HTTP_PROXY": "gopher://127.0.0.1"}, "HTTP_PROXY is not a valid proxy address"),
        ({"NO_PROXY": "", "HTTP_PROXY": "http://me:topsecret@["}, "HTTP_PROXY is not a valid proxy address"),
        ({"SSL_CERT_FILE": "/nowhere/cert.pem"}, "SSL_CERT_FILE"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_named(
    hub: StandIn, pull: Any, setting: dict[str, str], words: str
) -> None:
    done = pull(NAME, "-q", **setting)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert "topsecret" not in done.stderr
    assert hub.log == []


def test_settings_that_do_not_matter_do_no_harm(hub: StandIn, pull: Any) -> None:
    done = pull(
        NAME, "-q", HF_ENDPOINT=f"  {hub.url}// ", HTTPS_PROXY="socks5://x:1", HF_TOKEN=" hf_goodtoken\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_token_file_that_holds_none(hub: StandIn, pull: Any, home: Path) -> None:
    for content in (b"hf_\xff\xfe", "hf_sécret".encode(), b"x" * (1 << 20)):
        small_gguf.write(home / "huggingface/token", content)
        done = pull(NAME, "-q")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "token" in done.stderr
        assert "sécret" not in done.stderr


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[int]]]:
    """A proxy that refuses everything with the status that is set; gives its address."""
    answers = [407]

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(answers[0])

        do_CONNECT = do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_blamed_itself(pull: Any, proxy: tuple[str, list[int]], scheme: str) -> None:
    address, answers = proxy
    way = {
        "NO_PROXY": "",
        f"{scheme.upper()}_PROXY": f"http://me:topsecret@{address}",
        "HF_ENDPOINT": f"{scheme}://hub.invalid",
    }
    done = pull(NAME, "-q", **way, **QUICK)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1), done.stderr
    assert f"the proxy http://{address} requires a login (407)" in done.stderr
    answers[0] = 403
    done = pull(NAME, "-q", **way, **QUICK)
    assert (done.returncode, f"proxy http://{address}" in done.stderr) == (6, True), done.stderr
    assert "topsecret" not in done.stderr
    done = pull(NAME, "-q", **{**way, f"{scheme.upper()}_PROXY": "http://127.0.0.1:9"}, **QUICK)
    assert "the proxy http://127.0.0.1:9 cannot be reached" in done.stderr


def test_what_is_not_the_hubs_fault(hub: StandIn, pull: Any) -> None:
    done = pull(NAME, "-q", HF_ENDPOINT="http://no-such-name.invalid", **QUICK)
    assert (done.returncode, "cannot resolve the name of no-such-name.invalid" in done.stderr) == (6, True), (
        done.stderr
    )
    done = pull(NAME, "-q", HF_ENDPOINT=hub.url.replace("http:", "https:"), **QUICK)
    assert done.returncode == 6, done.stderr
    assert "https" in done.stderr or "cannot be reached" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        begin = time.monotonic()
        done = pull(NAME, "-q", HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", **QUICK)
        assert (done.returncode, "stopped responding" in done.stderr) == (6, True), done.stderr
        assert time.monotonic() - begin < 20


def test_a_listing_that_names_a_file_twice(hub: StandIn, pull: Any) -> None:
    entry = hub.repos[NAME].sibling(FILE)
    hub.repos[NAME].listed = [entry, {**entry, "size": 7}]
    done = pull(NAME, "-q")
    assert (done.returncode, "lists a file twice" in done.stderr) == (5, True)


@pytest.mark.parametrize(
    "odd", [{"sha": None}, {"siblings": 7}, {"siblings": [7]}, {"cardData": [1]}, {"siblings": [{}]}]
)
def test_listings_of_other_shapes(hub: StandIn, pull: Any, odd: dict[str, Any]) -> None:
    info = {"id": NAME, "sha": "a" * 40, "siblings": [], **odd}
    hub.fault(body(json.dumps(info).encode()), is_info, 9)
    done = pull(NAME, "-q")
    assert (done.returncode in {2, 5}, done.stderr.count("\n"), "None" in done.stderr) == (True, 1, False), (
        done.stderr
    )


def test_logins_in_addresses_are_taken_out() -> None:
    assert redacted("no way to http://me:topsecret@host:1/x") == "no way to http://[redacted]@host:1/x"
