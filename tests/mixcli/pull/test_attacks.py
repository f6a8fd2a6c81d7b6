"""A hub that means harm: names, etags, listings, redirects and tokens, seen in the server's log and on the disk outside the store."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mixcli.pull.hub_client import is_plain_path
from mixcli.pull.hub_errors import redacted
from tests.support import hub_server, small_gguf
from tests.support.hub_server import Handler, StandIn

MODEL = small_gguf.gguf(3 << 20)
NAME, FILE = "org/tiny-GGUF", "tiny.Q4_K_M.gguf"
TOKEN = {"HF_TOKEN": "hf_goodtoken"}

EVIL_NAMES = [
    "../../../../escaped.Q4_K_M.gguf",
    "/tmp/escaped.Q4_K_M.gguf",
    "a/../../escaped.Q4_K_M.gguf",
    "C:\\escaped.Q4_K_M.gguf",
    "a\\..\\escaped.Q4_K_M.gguf",
    "tiny\x1b]52;c;ZXZpbA==\x07.Q4_K_M.gguf",
    "tiny\u202efugg.Q4_K_M.gguf",
    "a//b.Q4_K_M.gguf",
    "./b.Q4_K_M.gguf",
    "nul\0.Q4_K_M.gguf",
    "x" * 300 + ".Q4_K_M.gguf",
]


def everything_outside(home: Path) -> set[Path]:
    """Give all files beside those that belong where a pull may write."""
    return {
        path
        for path in home.parent.rglob("*")
        if path.is_file() and not path.is_relative_to(home / "huggingface/hub/models--org--tiny-GGUF")
    }


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_names_that_lead_elsewhere(hub: StandIn, pull, home: Path, name: str) -> None:
    repo = hub.add(NAME, {FILE: MODEL})
    entry = repo.sibling(FILE)
    repo.listed = [{**entry, "rfilename": name}]
    before = everything_outside(home)
    done = pull(NAME, "-q", **TOKEN)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert "choose another repository" in done.stderr
    assert not any(ord(c) < 32 and c != "\n" for c in done.stderr)
    assert [seen.path for seen in hub.log] == [f"/api/models/{NAME}/revision/main"], (
        "a request was made of it"
    )
    assert not {path for path in everything_outside(home) - before if "escaped" in path.name}


def test_plain_names_are_plain() -> None:
    for name in (
        "model.gguf",
        "Q4_K_M/model-00001-of-00002.gguf",
        ".gitattributes",
        "größe (1).gguf",
        "a b.json",
    ):
        assert is_plain_path(name), name
    for name in (*EVIL_NAMES, "", None, 7, ".", "a/..", "a/", "é" * 200):
        assert not is_plain_path(name), name


EVIL_ETAGS = [
    "../../../../../../pwned",
    "a" * 39,
    "G" * 64,
    "",
    "a" * 64 + "\n",
    "A" * 64,
    17,
    None,
    ["a" * 64],
]


@pytest.mark.parametrize("etag", EVIL_ETAGS)
def test_etags_in_the_listing(hub: StandIn, pull, home: Path, etag: Any) -> None:
    repo = hub.add(NAME, {FILE: MODEL})
    entry = repo.sibling(FILE)
    entry["lfs"]["sha256"] = etag
    repo.listed = [entry]
    before = everything_outside(home)
    done = pull(NAME, "-q")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert "not a checksum" in done.stderr
    assert everything_outside(home) == before


@pytest.mark.parametrize("etag", ["../../../../../../pwned", "b" * 64])
def test_etags_that_change_after_the_listing(hub: StandIn, pull, home: Path, etag: str) -> None:
    hub.add(NAME, {FILE: MODEL}, etags={FILE: etag})
    done = pull(NAME, "-q")
    assert done.returncode == 5, done.stderr
    assert "check HF_ENDPOINT and the proxy" in done.stderr
    assert not list(home.parent.rglob("*pwned*"))
    assert hub.downloads() == []


@pytest.mark.parametrize("commit", ["../../evil", "main", "c" * 41, "C" * 40])
def test_commits_that_are_none(hub: StandIn, pull, home: Path, commit: str) -> None:
    hub.add(NAME, {FILE: MODEL}, commit=commit)
    done = pull(NAME, "-q")
    assert (done.returncode, "check HF_ENDPOINT and the proxy" in done.stderr) == (5, True)
    assert not list(home.rglob("evil"))


@pytest.mark.parametrize("size", [-1, 1 << 60, "7", True, None, 1.5])
def test_sizes_that_cannot_be(hub: StandIn, pull, size: Any) -> None:
    repo = hub.add(NAME, {FILE: MODEL})
    entry = repo.sibling(FILE)
    entry["lfs"]["size"] = size
    repo.listed = [entry]
    assert pull(NAME, "-q").returncode == 5


def test_a_token_stays_with_the_hub(hub: StandIn, pull) -> None:
    hub.add(NAME, {FILE: MODEL}, private=True)
    assert pull(NAME, **TOKEN).returncode == 0
    assert {seen.token for seen in hub.log if seen.server == "hub"} == {"hf_goodtoken"}
    assert {seen.token for seen in hub.log if seen.server == "cdn"} == {""}


def redirect(where: str, status: int = 302):  # type: ignore[no-untyped-def]
    def act(handler: Handler) -> bool:
        return handler.reply(status, {"Location": where})

    return act


@pytest.mark.parametrize("server", ["hub", "cdn"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_redirect_takes_the_token_along(hub: StandIn, pull, server: str, method: str) -> None:
    hub.add(NAME, {FILE: MODEL}, private=True)
    thief = f"{hub.cdn_url}/thief"
    hub.fault(redirect(thief), lambda seen: seen.server == server and seen.method == method, times=9)
    hub.fault(hub_server.status(404), lambda seen: seen.path == "/thief", times=99)
    done = pull(NAME, "-q", MIXCLI_PATIENCE="0.2", **TOKEN)
    if (server, method) != ("cdn", "HEAD"):
        assert done.returncode in {2, 5, 6}, done.stderr
    assert {seen.token for seen in hub.log if seen.server == "cdn"} <= {""}
    assert "hf_goodtoken" not in done.stderr


def test_redirects_without_an_end(hub: StandIn, pull) -> None:
    hub.add(NAME, {FILE: MODEL})
    hub.fault(redirect(f"{hub.cdn_url}/again"), hub_server.is_download, times=99)
    done = pull(NAME, "-q")
    assert (done.returncode, "redirects endlessly" in done.stderr) == (6, True)
    assert len(hub.downloads()) < 10


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_redirects_to_other_kinds_of_addresses(hub: StandIn, pull, where: str) -> None:
    hub.add(NAME, {FILE: MODEL})
    hub.fault(redirect(where), hub_server.is_download, times=99)
    done = pull(NAME, "-q")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert "not http or https" in done.stderr


def test_signed_addresses_and_tokens_are_not_printed(hub: StandIn, pull) -> None:
    hub.add(NAME, {FILE: MODEL})
    for act in (hub_server.status(503), hub_server.reset(100), hub_server.status(418)):
        hub.faults.clear()
        hub.fault(act, times=99)
        done = pull(NAME, MIXCLI_PATIENCE="0.6", **TOKEN)
        assert done.returncode == 6
        assert "topsecret" not in done.stderr + done.stdout
        assert "hf_goodtoken" not in done.stderr + done.stdout
    assert redacted("GET https://x/y?Signature=abc with hf_abcDEF and Bearer xyz") == (
        "GET https://x/y?[redacted] with [redacted] and [redacted]"
    )


def test_a_planted_link_in_the_place_of_the_part_is_not_followed(hub: StandIn, pull, home: Path) -> None:
    hub.add(NAME, {FILE: MODEL})
    victim = small_gguf.write(home.parent / "victim", b"precious")
    blobs = home / "huggingface/hub/models--org--tiny-GGUF/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(MODEL).hexdigest()}.mixcli.incomplete").symlink_to(victim)
    done = pull(NAME, "-q")
    assert done.returncode == 2, done.stderr
    assert victim.read_bytes() == b"precious"


def test_a_planted_link_in_the_place_of_the_pointer_is_replaced(hub: StandIn, pull, home: Path) -> None:
    repo = hub.add(NAME, {FILE: MODEL})
    victim = small_gguf.write(home.parent / "victim", b"precious")
    pointer = home / "huggingface/hub/models--org--tiny-GGUF/snapshots" / repo.commit / FILE
    pointer.parent.mkdir(parents=True)
    pointer.symlink_to(victim)
    assert pull(NAME, "-q").returncode == 0
    assert victim.read_bytes() == b"precious"
    assert pointer.read_bytes() == MODEL


def test_an_answer_that_is_no_listing(hub: StandIn, pull) -> None:
    for answer in (b"<html>hello</html>", b"[]", json.dumps({"id": NAME, "sha": 7}).encode()):
        hub.fault(lambda handler, answer=answer: handler.reply(200, {}, answer), lambda seen: True, 1)  # type: ignore[misc]
        done = pull(NAME, "-q")
        assert done.returncode in {5, 6}, done.stderr
        assert (done.stderr.count("\n"), "Traceback" in done.stderr) == (1, False)
