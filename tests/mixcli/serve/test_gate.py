"""Who is let in: decided from a request's head, threat by threat."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mixcli.cli import cli
from mixcli.errors import UsageError
from mixcli.host.protocol.body_limits import MAX_BODY
from mixcli.host.protocol.paths import ROUTES, find_route
from mixcli.serve.cors import Cors, cors_of
from mixcli.serve.gate import Accepted, Gate, Headers, Preflight, keys_in, names_of
from mixcli.serve.keys import KeyRing
from mixcli.serve.refusal import Refusal
from mixcli.serve.server import key_for

KEY = "correct-horse-battery-staple"


def head(**fields: str) -> Headers:
    """A request's headers; a field that is None is left out."""
    said = {"host": "127.0.0.1:8080", "content_type": "application/json", **fields}
    return [
        (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in said.items() if value
    ]


def status(gate: Gate, method: str = "POST", path: str = "/v1/chat/completions", **fields: str) -> int | None:
    """The status of the refusal, None for a request that is let in."""
    verdict = gate.judge(method, path, head(**fields))
    return verdict.status if isinstance(verdict, Refusal) else None


def keys(*args: Any) -> KeyRing:
    return KeyRing(*args, pytest.fail)


OPEN = Gate(names_of("127.0.0.1", ("llm.lan",)))
LOCKED = Gate(names_of("0.0.0.0", ()), keys(KEY, None))
PAGES = Cors(frozenset({"https://app.example", "http://localhost:5173"}))


def test_a_variable_that_was_named_must_hold_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_KEY", " ")
    assert key_for("127.0.0.1", "EMPTY_KEY") is None
    for args in (["--api-key-env", "EMPTY_KEY"], ["--api-key-env", "UNSET_KEY"]):
        with pytest.raises(UsageError, match=r"^[A-Z]+_KEY is not set or empty; export "):
            cli.main(["serve", *args], standalone_mode=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "llm.lan:8080", "127.0.0.1"]
)
def test_it_goes_by_its_own_names(host: str) -> None:
    assert status(OPEN, host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example:8080",
        "localhost.evil.example",
        "",
        "[::1",
        "10.0.0.9:8080",
        "127.0.0.1:8080:1",
    ],
)
def test_a_rebound_name_is_a_stranger(host: str) -> None:
    assert status(OPEN, host=host) == 403


def test_two_hosts_are_none() -> None:
    verdict = OPEN.judge("POST", "/v1/chat/completions", [*head(), (b"Host", b"evil.example")])
    assert isinstance(verdict, Refusal)
    assert verdict.status == 403


@pytest.mark.parametrize("host", ["10.0.0.9:8080", "my-server.lan", "llm.example", "[fe80::1]:8080", ""])
def test_with_a_key_it_goes_by_any_name(host: str) -> None:
    assert status(LOCKED, host=host, authorization=f"Bearer {KEY}") is None
    assert status(LOCKED, host=host, authorization=f"Bearer {KEY}", origin="https://evil.example") is None
    assert status(LOCKED, host=host) == 401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[::1", "http://127.0.0.1.evil.example"]
)
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    assert status(OPEN, origin=origin) == 403
    assert status(OPEN, origin="http://localhost:3000") is None


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "text/plain;application/json",
    ],
)
def test_what_a_page_may_send_unasked_is_no_json(kind: str) -> None:
    assert status(OPEN, content_type=kind) == 415
    assert status(OPEN, content_type="Application/JSON; charset=utf-8") is None


@pytest.mark.parametrize(
    ("coding", "expected"), [("gzip", 415), ("br, gzip", 415), ("identity", None), ("", None)]
)
def test_a_compressed_body_is_refused_as_one(coding: str, expected: int | None) -> None:
    assert status(OPEN, content_encoding=coding) == expected


@pytest.mark.parametrize("gate", [OPEN, LOCKED])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/health"), ("OPTIONS", "/health")])  # fmt: skip
def test_a_request_of_two_lengths_is_refused_and_is_the_last_of_its_connection(
    gate: Gate, method: str, path: str
) -> None:
    verdict = gate.judge(
        method, path, head(authorization=f"Bearer {KEY}", content_length="4", transfer_encoding="chunked")
    )
    assert isinstance(verdict, Refusal) and verdict.status == 400
    assert (b"connection", b"close") in verdict.headers


def test_pages_that_the_user_named_are_let_in() -> None:
    gate = Gate(names_of("127.0.0.1", ()), None, PAGES)
    assert status(gate, origin="https://app.example") is None
    assert status(gate, origin="https://app.example", host="evil.example") == 403
    for other in ("https://app.example:444", "http://app.example", "https://app.example.evil", "null"):
        assert status(gate, origin=other) == 403
    assert (
        dict(PAGES.headers("https://app.example"))[b"access-control-allow-origin"] == b"https://app.example"
    )
    assert PAGES.headers("https://evil.example") == [(b"vary", b"Origin")]
    assert Cors().headers("https://app.example") == []


@pytest.mark.parametrize(
    "gate", [OPEN, Gate(names_of("::", ()), keys(KEY, None), PAGES)], ids=["open", "key"]
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/models"])
def test_options_needs_no_key_and_names_the_methods(gate: Gate, path: str) -> None:
    verdict = gate.judge("OPTIONS", path, head(content_type=""))
    assert isinstance(verdict, Preflight)
    found = find_route(path)
    assert found
    assert dict(verdict.headers)[b"allow"] == ", ".join(found[0].methods).encode()
    assert not any(name.startswith(b"access-control") for name, _ in verdict.headers)


def test_a_preflight_of_a_named_page_gets_what_it_asks_for_and_another_one_nothing() -> None:
    asked = {
        "access_control_request_method": "POST",
        "access_control_request_headers": "authorization,x-stainless-os",
    }
    for ring in (None, keys(KEY, None)):
        gate = Gate(names_of("127.0.0.1", ()), ring, PAGES)
        verdict = gate.judge("OPTIONS", "/v1/chat/completions", head(origin="https://app.example", **asked))
        assert isinstance(verdict, Preflight)
        answer = dict(verdict.headers)
        assert answer[b"access-control-allow-origin"] == b"https://app.example"
        assert answer[b"access-control-allow-headers"] == b"authorization,x-stainless-os"
        assert b"POST" in answer[b"access-control-allow-methods"]
        other = gate.judge("OPTIONS", "/v1/chat/completions", head(origin="https://evil.example", **asked))
        headers = (
            [] if isinstance(other, Refusal) else other.headers if isinstance(other, Preflight) else None
        )
        assert headers is not None
        assert not any(name.startswith(b"access-control") for name, _ in headers)


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://", "ftp:app", "https://a:b", ""]
)
def test_what_is_not_an_origin_is_refused_when_it_is_named(origin: str) -> None:
    with pytest.raises(UsageError, match="invalid origin"):
        cors_of([origin], has_key=True)


def test_all_pages_need_a_key() -> None:
    with pytest.raises(UsageError, match="an API key is required"):
        cors_of(["*"], has_key=False)
    assert cors_of(["*"], has_key=True).allows("https://anything.example")


@pytest.mark.parametrize(
    "said", ["", KEY, f"Basic {KEY}", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer \xff\xfe"]
)
def test_a_wrong_key_is_refused_before_anything_else_is_told(said: str) -> None:
    assert status(LOCKED, authorization=said) == 401
    assert status(LOCKED, "GET", "/v1/models", authorization=said) == 401
    assert status(LOCKED, "GET", "/nowhere", authorization=said) == 401


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/messages/", "/v1/messages/count_tokens", "/v1/messages/batches"]
)
@pytest.mark.parametrize(
    ("gate", "fields", "method", "kind"),
    [
        (LOCKED, {}, "POST", "authentication_error"),
        (OPEN, {"host": "evil.example"}, "POST", "permission_error"),
        (OPEN, {"content_type": "text/plain"}, "POST", "invalid_request_error"),
        (OPEN, {"content_length": str(MAX_BODY + 1)}, "POST", "request_too_large"),
        (OPEN, {}, "GET", "invalid_request_error"),
    ],
)  # fmt: skip
def test_clients_of_anthropics_api_are_refused_in_its_form(
    gate: Gate, fields: dict[str, str], method: str, kind: str, path: str
) -> None:
    verdict = gate.judge(method, path, head(**fields))
    assert isinstance(verdict, Refusal)
    body = json.loads(verdict.body(path))
    expected = "not_found_error" if verdict.status == 404 else kind
    assert (body["type"], body["error"]["type"]) == ("error", expected)
    assert "type" not in json.loads(verdict.body("/v1/chat/completions"))


def test_the_right_key_is_let_in() -> None:
    assert status(LOCKED, authorization=f"Bearer {KEY}") is None
    assert status(LOCKED, authorization=f"bearer {KEY}") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": KEY},
        {"x_api_key": KEY, "authorization": "Bearer other"},
        {"x_api_key": "other", "authorization": f"Bearer {KEY}"},
    ],
)
def test_anthropics_header_is_one_too(headers: dict[str, str]) -> None:
    assert status(LOCKED, **headers) is None
    assert KEY in keys_in(head(**headers))


def test_clients_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    def client(**headers: str) -> bytes:
        verdict = OPEN.judge("POST", "/v1/chat/completions", head(**headers))
        assert isinstance(verdict, Accepted)
        return verdict.client

    assert client(authorization="Bearer a") == client(x_api_key="a") != client(authorization="Bearer b")
    assert client() == client(authorization="Basic a")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_needs_neither_key_nor_host_and_tells_strangers_little(method: str) -> None:
    for gate, fields, is_brief in (
        (LOCKED, {"host": "10.1.2.3"}, True),
        (LOCKED, {"authorization": f"Bearer {KEY}"}, False),
        (OPEN, {"host": "evil.example"}, True),
        (OPEN, {}, False),
    ):
        verdict = gate.judge(method, "/health", head(content_type="", **fields))
        assert isinstance(verdict, Accepted)
        assert verdict.is_brief == is_brief


def test_every_route_has_its_spellings() -> None:
    for route in ROUTES:
        path = route.path.replace("{model}", "org/name:Q4_K_M")
        for spelling in (path, path + "/", path.removeprefix("/v1"), path.removeprefix("/v1") + "/"):
            assert find_route(spelling) == ((route, path) if route.is_public else None), spelling
    assert find_route("/v1/health")
    for path in (
        "",
        "/",
        "//",
        "/v1",
        "/v1/",
        "/v1/models/x/../../mixcli/attach",
        "/v1/models/..",
        "/v2/models",
    ):
        assert find_route(path) is None, path


def test_only_what_is_meant_for_others_is_passed_on() -> None:
    for path in (
        "/mixcli/attach",
        "/mixcli/experts",
        "/",
        "/v1/../mixcli/attach",
        "/v1/models/../../mixcli/attach",
    ):
        assert status(OPEN, "GET", path) == 404
    assert status(OPEN, "GET", "/v1/chat/completions") == 405
    assert status(OPEN, "DELETE", "/v1/models/demo") == 405
    assert status(OPEN, "GET", "/v1/models", content_type="") is None
    assert status(OPEN, "HEAD", "/v1/models", content_type="") is None


def test_large_bodies_are_refused_by_their_length() -> None:
    assert status(OPEN, content_length=str(MAX_BODY + 1)) == 413
    assert status(OPEN, content_length=str(MAX_BODY)) is None


def test_keys_in_a_file_are_valid_until_they_are_taken_out(tmp_path: Path) -> None:
    file, said = tmp_path / "keys", []
    first, second = "first-key-of-the-file", "second-key-of-the-file"
    file.write_text(f"# of the team\n{first}\n\n  {second}  \n")
    file.chmod(0o600)
    ring = KeyRing(KEY, file, said.append)
    assert [ring.knows(key) for key in (KEY, first, second, "# of the team", "")] == [True] * 3 + [False] * 2
    file.write_text(f"{second}\n")
    assert [ring.knows(key) for key in (KEY, first, second)] == [True, False, True]
    for spoil in (lambda: file.write_text("short\n"), lambda: file.chmod(0o640), file.unlink):
        before = len(said)
        spoil()
        assert [ring.knows(key) for key in (first, second)] == [False, True]
        assert len(said) == before + 1, "one warning for one change"
        assert "the API keys are unchanged" in said[-1]
    file.write_text(f"{first}\n")
    file.chmod(0o600)
    assert [ring.knows(key) for key in (first, second)] == [True, False]
    assert not any(first in line or second in line for line in said)


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o644, KEY, "run `chmod 600"),
        (0o620, KEY, "other users"),
        (0o600, "", "has no API key"),
        (0o600, f"{KEY}\ntiny\n", "line 2 is 4 characters long"),
        (0o600, "a key with spaces in it", "line 1 has characters other than"),
        (0o600, "x" * (1 << 21), "larger than 1,048,576 bytes"),
    ],
)
def test_a_file_of_keys_that_is_not_one_is_refused(tmp_path: Path, mode: int, text: str, words: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(UsageError, match=words):
        KeyRing(None, file, pytest.fail)
    with pytest.raises(UsageError, match="cannot be read"):
        KeyRing(None, tmp_path / "nowhere", pytest.fail)


def test_a_key_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "0123456789abcdef")
    assert key_for("0.0.0.0", "A_KEY") == "0123456789abcdef"
    assert "A_KEY" not in os.environ
    assert key_for("0.0.0.0", "A_KEY", has_others=True) is None


def test_only_the_key_of_its_record_lets_a_program_look_at_the_port() -> None:
    gate = Gate(names_of("0.0.0.0", ()), keys(KEY, None), look_key="0123456789abcdef")
    right = {"x_mixcli_look": "0123456789abcdef"}
    assert gate.is_look("GET", "/mixcli/port", head(**right))
    assert not gate.is_look("POST", "/mixcli/port", head(**right))
    assert not gate.is_look("GET", "/health", head(**right))
    for sent in (
        {},
        {"x_mixcli_look": "0123456789abcdeé"},
        {"x_mixcli_look": KEY},
        {"authorization": f"Bearer {KEY}"},
    ):
        assert not gate.is_look("GET", "/mixcli/port", head(**sent))
    assert status(gate, "GET", "/mixcli/port", **right) == 401, "it is no API key"
    assert not LOCKED.is_look("GET", "/mixcli/port", head(x_mixcli_look="")), (
        "without a record there is no key"
    )
