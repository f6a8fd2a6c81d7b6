"""Who is let in: decided from a request's head, threat by threat."""

import pytest

from mixcli.cli import cli
from mixcli.errors import UsageError
from mixcli.serve.gate import MAX_BODY, Gate, Headers, names_of
from mixcli.serve.server import key_for

KEY = "correct horse battery staple"


def head(**fields: str) -> Headers:
    """A request's headers; a field that is None is left out."""
    said = {"host": "127.0.0.1:8080", "content_type": "application/json", **fields}
    return [
        (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in said.items() if value
    ]


def status(gate: Gate, method: str = "POST", path: str = "/v1/chat/completions", **fields: str) -> int | None:
    refusal = gate.refusal(method, path, head(**fields))
    return refusal.status if refusal else None


OPEN = Gate(names_of("127.0.0.1", ("llm.lan",)))
LOCKED = Gate(names_of("0.0.0.0", ()), KEY)


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
    headers = [*head(), (b"Host", b"evil.example")]
    refusal = OPEN.refusal("POST", "/v1/chat/completions", headers)
    assert refusal is not None
    assert refusal.status == 403


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


def test_preflights_get_nothing() -> None:
    assert status(OPEN, "OPTIONS") == 405


@pytest.mark.parametrize(
    "said", ["", KEY, f"Basic {KEY}", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer \xff\xfe"]
)
def test_a_wrong_key_is_refused_before_anything_else_is_told(said: str) -> None:
    assert status(LOCKED, authorization=said) == 401
    assert status(LOCKED, "GET", "/v1/models", authorization=said) == 401
    assert status(LOCKED, "GET", "/nowhere", authorization=said) == 401


def test_the_right_key_is_let_in() -> None:
    assert status(LOCKED, authorization=f"Bearer {KEY}") is None
    assert status(LOCKED, authorization=f"bearer {KEY}") is None


def test_only_what_is_meant_for_others_is_passed_on() -> None:
    for path in (
        "/mixcli/attach",
        "/mixcli/experts",
        "/",
        "/v1/chat/completions/",
        "/v1/../mixcli/attach",
        "/docs",
        "/openapi.json",
    ):
        assert status(OPEN, "GET", path) == 404
    assert status(OPEN, "GET", "/v1/chat/completions") == 405
    assert status(OPEN, "GET", "/v1/models", content_type="") is None


def test_large_bodies_are_refused_by_their_length() -> None:
    assert status(OPEN, content_length=str(MAX_BODY + 1)) == 413
    assert status(OPEN, content_length=str(MAX_BODY)) is None
