"""The files of the chat page on a port: who gets them, with which headers, and only with --ui."""

import re

import pytest

from mixcli.serve.chat_page import FOLDER, INDEX, PageFile, page_files
from mixcli.serve.gate import Gate, names_of
from mixcli.serve.keys import KeyRing
from mixcli.serve.refusal import Refusal
from tests.mixcli.serve.test_gate import KEY, OPEN, head, status
from tests.support.ports import served
from tests.support.served import Served

FILES = page_files()
PAGE = Gate(names_of("127.0.0.1", ()), pages=FILES)
LOCKED = Gate(names_of("0.0.0.0", ()), KeyRing(KEY, None, pytest.fail), pages=FILES)


def test_without_a_page_its_paths_do_not_exist() -> None:
    assert status(OPEN, "GET", "/") == status(OPEN, "GET", "/page/app.js") == 404


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/page.css"])
def test_its_files_need_no_key_but_a_name_of_this_server(path: str) -> None:
    assert status(PAGE, "GET", path) is status(LOCKED, "GET", path) is None
    assert status(PAGE, "GET", path, host="evil.example") == 403
    assert status(PAGE, "OPTIONS", path, host="evil.example") == 403
    assert status(PAGE, "GET", path, origin="https://evil.example") == 403
    refused = PAGE.judge("POST", path, head())
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.extra) == (405, ((b"allow", b"GET, HEAD, OPTIONS"),))


def test_what_the_page_asks_for_needs_the_key() -> None:
    assert status(LOCKED, "GET", "/v1/models") == status(LOCKED) == 401


@pytest.mark.parametrize("path", ["/page/", "/page/../gate.py", "/page/%2e%2e/gate.py", "/index.html", "//"])
def test_there_are_no_other_files(path: str) -> None:
    assert status(PAGE, "GET", path) == 404


def test_a_port_serves_them_with_headers_that_keep_a_browser_here() -> None:
    with served(None, PAGE) as port:  # also while the model loads
        page = port.ask("GET", "/")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.raw == (FOLDER / INDEX).read_bytes()
        policy = dict(
            part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
        )
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == (
            "nosniff",
            "no-referrer",
        )
        assert page.headers["cache-control"] == "no-cache"
        etag = page.headers["etag"]
        for known in (etag, f'"x", W/{etag}', "*"):
            again = port.ask("GET", "/", If_None_Match=known)
            assert (again.status, again.raw, again.headers["etag"]) == (304, b"", etag)
        assert port.ask("GET", "/", If_None_Match='"x"').raw == page.raw
        empty = port.ask("HEAD", "/page/app.js")
        assert (empty.status, empty.raw, empty.headers["content-length"]) == (
            200,
            b"",
            str(len(FILES["/page/app.js"].body)),
        )
        assert port.ask("OPTIONS", "/").headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.slow
@pytest.mark.parametrize("served_tiny", [["--ui"]], indirect=True)
def test_the_command_serves_it_and_says_where(served_tiny: Served) -> None:
    assert served_tiny.ask("GET", "/") == (200, FILES["/"].body.decode())
    code, err = served_tiny.end()
    assert code == 0
    assert f"chat page at http://127.0.0.1:{served_tiny.port}/" in served_tiny.said + err


def test_the_page_names_only_files_of_its_own() -> None:
    """Nothing inline, which its policy forbids, and nothing of another server."""
    text = FILES["/"].body.decode()
    named = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert {f"/{name}" for name in named if name.startswith("page/")} <= FILES.keys()
    assert [name for name in named if not name.startswith(("page/", "#", "data:image/svg+xml,"))] == []
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", text) == []


@pytest.mark.parametrize("path", sorted(FILES))
def test_its_files_can_be_read(path: str) -> None:
    text = FILES[path].body.decode()
    assert len(text.splitlines()) <= 400
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    imported = re.findall(r'^import .* from "\./(.*)";$', text, re.M)
    assert {f"/page/{name}" for name in imported} <= FILES.keys()
    assert path == "/" or text.startswith(("// ", "/* ")), "the first line says what belongs in the file"
    assert isinstance(FILES[path], PageFile)
