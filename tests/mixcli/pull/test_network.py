"""What the network does to a pull, and how a pull comes out of it: with the real client, against the stand-in hub."""

import hashlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from mixcli.errors import MixcliError
from mixcli.pull.hub_errors import Place
from mixcli.pull.retry import RetryPolicy
from tests.support import hub_server, small_gguf
from tests.support.hub_server import Handler, Seen, StandIn

MIB = 1 << 20
MODEL = small_gguf.gguf(8 * MIB)
SHORT = {
    "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    "HF_HUB_ETAG_TIMEOUT": "1",
}  # seconds of silence until it counts as one
NAME, FILE = "org/tiny-GGUF", "tiny.Q4_K_M.gguf"
BLOB = f"huggingface/hub/models--org--tiny-GGUF/blobs/{hashlib.sha256(MODEL).hexdigest()}"


@pytest.fixture(autouse=True)
def repo(hub: StandIn) -> None:
    hub.add(NAME, {FILE: MODEL})


def body(seen: Seen) -> bool:
    """The download itself, after the header was read."""
    return hub_server.is_download(seen) and seen.start > 0


def is_info(seen: Seen) -> bool:
    return seen.path.startswith("/api/models/")


def is_head(seen: Seen) -> bool:
    return seen.method == "HEAD"


def anything(seen: Seen) -> bool:
    return True


@pytest.mark.parametrize(
    ("act", "times"),
    [
        (hub_server.cut(2 * MIB), 1),
        (hub_server.reset(2 * MIB), 1),
        (hub_server.stall(2), 1),
        (hub_server.cut(1 * MIB), 20),
        (hub_server.status(503), 2),
        (hub_server.status(429, Retry_After="1"), 1),
        (hub_server.status(403), 1),  # a signed address that has expired
    ],
    ids=["cut", "reset", "stall", "a drop every MiB", "503", "429", "expired"],
)
def test_a_pull_goes_on_where_it_was(
    hub: StandIn, pull, home: Path, act: Callable[[Handler], bool], times: int
) -> None:
    hub.fault(act, body, times)
    done = pull(NAME, **SHORT)
    assert done.returncode == 0, done.stderr
    assert (home / BLOB).read_bytes() == MODEL
    assert len(hub.downloads()) > 2
    assert sum(seen.sent for seen in hub.downloads()) <= len(MODEL) + MIB, "bytes that were here came again"
    starts = [seen.start for seen in hub.downloads()]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    "act", [hub_server.status(503), hub_server.status(429, Retry_After="1"), hub_server.stall(2)]
)
@pytest.mark.parametrize("hits", [is_info, is_head])
def test_the_other_requests_are_tried_again_too(
    hub: StandIn, pull, act: Callable[[Handler], bool], hits: Callable[[Seen], bool]
) -> None:
    hub.fault(act, hits, 1)
    assert pull(NAME, **SHORT).returncode == 0
    assert len([seen for seen in hub.log if hits(seen)]) >= 2


def test_a_server_without_ranges_is_good_enough(hub: StandIn, pull, home: Path) -> None:
    hub.fault(hub_server.range_ignored, times=99)
    hub.faults.insert(0, hub_server.Fault(body, hub_server.cut(3 * MIB)))
    assert pull(NAME).returncode == 0
    assert (home / BLOB).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("act", "hits", "words"),
    [
        (hub_server.status(429, Retry_After="7"), anything, "(429); retry in 7 s"),
        (hub_server.status(429), body, "rate limited"),
        (hub_server.status(503), body, "returned 503"),
        (hub_server.status(500), is_info, "returned 500"),
        (hub_server.status(403), is_info, "denies this account access to org/tiny-GGUF (403)"),
        (hub_server.stall(2), is_info, "stopped responding"),
    ],
)
def test_what_does_not_get_better_is_said_as_it_is(
    hub: StandIn, pull, act: Callable[[Handler], bool], hits: Callable[[Seen], bool], words: str
) -> None:
    hub.fault(act, hits, 999)
    done = pull(NAME, "-q", MIXCLI_PATIENCE="1.2", **(SHORT if words == "stopped responding" else {}))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1), done.stderr
    assert words in done.stderr
    assert "offline" not in done.stderr


def test_nobody_is_there(hub: StandIn, pull) -> None:
    done = pull(NAME, "-q", HF_ENDPOINT="http://127.0.0.1:9", MIXCLI_PATIENCE="0.7")
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert "127.0.0.1:9 cannot be reached" in done.stderr


class Clock(threading.Event):
    """A stop that nobody gives, and on which no time is spent."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


@pytest.mark.parametrize(("first", "longest"), [(True, 8.0), (False, 30.0)])
def test_a_first_question_that_nobody_hears_is_not_asked_for_long(first: bool, longest: float) -> None:
    clock = Clock()
    patience = RetryPolicy(Place("org/tiny", "main"), clock, first=first)
    for _ in range(7):
        try:
            patience.failed(httpx2.ConnectError("nobody"))
        except MixcliError as error:
            assert error.exit_code == 6
            break
    assert clock.waits[0] == 0.5
    assert clock.waits[-1] == longest


def test_wrong_bytes_are_fetched_once_more(hub: StandIn, pull, home: Path) -> None:
    hub.fault(hub_server.wrong_bytes, body, 1)
    done = pull(NAME)
    assert done.returncode == 0, done.stderr
    assert (home / BLOB).read_bytes() == MODEL
    assert sum(seen.sent for seen in hub.downloads()) > len(MODEL)


def test_bytes_that_stay_wrong_are_refused_by_name(hub: StandIn, pull, home: Path) -> None:
    hub.fault(hub_server.wrong_bytes, times=99)
    done = pull(NAME, "-q")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert FILE in done.stderr
    assert "the wrong checksum" in done.stderr
    assert not (home / BLOB).exists()
    assert not list((home / "huggingface").rglob("*.gguf"))


@pytest.mark.parametrize(
    ("how", "token", "code", "words"),
    [
        ({"gated": True}, None, 6, "is gated: accept its terms at http://127.0.0.1"),
        ({"gated": True}, "hf_goodtoken", 0, "license: Apache-2.0"),
        ({"private": True}, None, 6, "repository org/tiny-GGUF not found, or it is private"),
        ({}, "hf_badtokensecret", 6, "rejected the token"),
    ],
)
def test_who_may_not_is_told_why(
    hub: StandIn, pull, how: dict[str, bool], token: str | None, code: int, words: str
) -> None:
    hub.add(NAME, {FILE: MODEL}, **how)
    done = pull(NAME, **({"HF_TOKEN": token} if token else {}))
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "hf_" not in done.stderr.replace("hf auth", "")


def test_what_is_not_there(hub: StandIn, pull) -> None:
    assert "repository org/other not found" in pull("org/other").stderr
    assert "has no revision 'nowhere'" in pull(f"{NAME}@nowhere").stderr
    assert "has no other.gguf" in pull(f"{NAME}/other.gguf").stderr
    hub.repos[NAME].listed = [hub.repos[NAME].sibling(FILE)]
    del hub.repos[NAME].files[FILE]
    done = pull(NAME)
    assert (done.returncode, f"has no file '{FILE}'" in done.stderr) == (2, True)


# kills


def part_size(home: Path) -> int:
    part = home / f"{BLOB}.mixcli.incomplete"
    return part.stat().st_size if part.exists() else 0


@pytest.mark.slow
def test_kill_at_twenty_random_moments(hub: StandIn, start_pull, home: Path) -> None:
    model = small_gguf.gguf(16 * MIB)
    hub.add(NAME, {FILE: model})
    blob = home / "huggingface/hub/models--org--tiny-GGUF/blobs" / hashlib.sha256(model).hexdigest()
    part = blob.with_name(f"{blob.name}.mixcli.incomplete")

    def here() -> int:
        return part.stat().st_size if part.exists() else 0

    hub.pause = 0.003
    dice = random.Random(8)
    for _ in range(20):
        process = start_pull(NAME)
        moment = here() + dice.randrange(1, 1_200_000)
        while here() < moment:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        process.wait()
    hub.pause = 0.0
    process = start_pull(NAME)
    assert process.wait(60) == 0
    assert blob.read_bytes() == model
    assert not list(home.rglob("*.incomplete"))
    starts = [seen.start for seen in hub.downloads()]
    assert len(starts) >= 20
    assert starts == sorted(starts), "bytes that were on the disk were asked for again"
    time.sleep(0.1)  # the server shall have noticed the last of them
    again = sum(seen.sent for seen in hub.downloads()) - len(model)
    assert again <= 20 * MIB


@pytest.mark.slow
@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_keeps_the_part(
    hub: StandIn, start_pull, home: Path, signal_: int, code: int
) -> None:
    hub.pause = 0.02
    process = start_pull(NAME, "-q")
    while part_size(home) < 2 * MIB:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal_)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (code, False)
    assert part_size(home) >= 2 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_several_pulls_are_one_download(hub: StandIn, start_pull, home: Path, n: int) -> None:
    hub.pause = 0.01
    together = [start_pull(NAME) for _ in range(n)]
    errors = [process.communicate(timeout=60)[1] for process in together]
    assert [process.returncode for process in together] == [0] * n, errors
    assert (home / BLOB).read_bytes() == MODEL
    assert sum(seen.sent for seen in hub.downloads() if body(seen)) <= len(MODEL)
    assert sum(seen.sent for seen in hub.downloads()) <= len(MODEL) + (n - 1) * MIB, "headers, and one body"


@pytest.mark.slow
def test_when_the_holder_dies_the_waiter_goes_on(hub: StandIn, start_pull, home: Path) -> None:
    hub.pause = 0.02
    holder = start_pull(NAME)
    while part_size(home) < 2 * MIB:
        time.sleep(0.01)
    waiter = start_pull(NAME)
    time.sleep(1.5)
    assert waiter.poll() is None
    holder.kill()
    holder.wait()
    _, err = waiter.communicate(timeout=60)
    assert waiter.returncode == 0, err
    assert (home / BLOB).read_bytes() == MODEL
    assert sum(seen.sent for seen in hub.downloads()) <= len(MODEL) + MIB


def test_a_full_disk_keeps_what_is_there(hub: StandIn, start_pull, pull, home: Path, online) -> None:
    import resource
    import sys

    limit = 3 * MIB
    process = subprocess.run(
        [sys.executable, "-m", "mixcli", "pull", NAME, "-q"],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (process.returncode, process.stderr.count("\n")) == (4, 1), process.stderr
    assert part_size(home) == limit
    assert pull(NAME).returncode == 0
    assert (home / BLOB).read_bytes() == MODEL
    assert all(seen.start >= limit - MIB for seen in hub.downloads()[3:])
