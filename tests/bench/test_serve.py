"""bench.serve: an answer that was cut off counts as lost, promises say what was measured, the page shows both sides."""

import json
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.engine import texts
from bench.estimate import Estimate
from bench.page import Machines
from bench.serve import GATE, LIMITS, N_LONG, SCENARIOS, long_text, promises
from bench.serve_client import ask_all, once
from bench.serve_gate import PORT, STRAIGHT
from bench.serve_page import STORIES, serve_section
from tests.support.bench_machine import MACHINE

PIECE = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
STREAMS = {"whole": PIECE + b": alive\n\n" + PIECE + USAGE + b"data: [DONE]\n\n", "cut": PIECE + PIECE}


class Handler(BaseHTTPRequestHandler):
    """Answers with the stream that a request names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stream = STREAMS[body["kind"]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(stream)))
        self.end_headers()
        self.wfile.write(stream)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_pieces_are_timed_and_what_is_cut_is_lost(port: int) -> None:
    kinds = ["whole", "cut", "whole"]
    answers = ask_all(lambda: HTTPConnection("127.0.0.1", port), [{"kind": kind} for kind in kinds], 2)
    assert [bool(one.usage) for one in answers] == [True, False, True]
    assert answers[0].usage == {"prompt_tokens": 3, "completion_tokens": 2}
    assert all(len(one.pieces) == 2 and one.sent <= one.pieces[0] <= one.ended for one in answers)
    assert (
        len(once(lambda: HTTPConnection("127.0.0.1", port), {"kind": "whole"}, lambda n: n == 1).pieces) == 1
    )


def test_promises_are_held_pair_by_pair() -> None:
    ours = [{"total": 30.0, "whole": 1.0, "late": 1.2}, {"total": 20.0, "whole": 1.0, "late": 2.2}]
    theirs = [{"total": 20.0, "whole": 1.0}, {"total": 20.0, "whole": 1.0}]
    found = promises("load", {"mixcli": ours, "llama-server": theirs})
    values = [(one.estimate.value, one.words) for one in found]
    assert values == [(1.0, "kept"), (pytest.approx(1.7), "open"), (1.25, "kept")]
    alone = promises("load", {"mixcli": ours[1:]})
    assert [(one.estimate.value, one.verdict) for one in alone] == [(1.0, "kept"), (2.2, "not kept")]


def test_what_the_port_costs_is_that_of_neighbors_in_time() -> None:
    """The machine slows down by half meanwhile: a difference and a ratio of each pair know nothing of it."""
    straight = [{"ms": 50.0}, {"ms": 100.0}, {"streams": 100.0}, {"streams": 50.0}]
    port = [{"ms": 52.0}, {"ms": 102.0}, {"streams": 99.0}, {"streams": 49.5}]
    added, share = promises(GATE, {PORT: port, STRAIGHT: straight})
    assert (added.estimate, added.words) == (Estimate(2.0, 2.0, 2.0, 2), "kept")
    assert (share.estimate, share.words) == (Estimate(0.99, 0.99, 0.99, 2), "kept")
    slow = promises(GATE, {PORT: [{"ms": 54.0}, {"ms": 55.0}], STRAIGHT: [{"ms": 50.0}, {"ms": 50.0}]})
    assert [one.words for one in slow] == ["not kept"]


def test_the_page_has_every_scenario_and_number() -> None:
    numbers: dict[str, Mapping[str, float]] = {
        "load": {"total": 210.5, "whole": 1.0},
        "beside": {"pause": 0.81, "others": 0.3},
    }
    scenarios = {
        name: {
            "machine": MACHINE,
            "rounds": {"mixcli": [{"others": 0.0, **found}]},
            "promises": [
                one.to_data() for one in promises(name, {"mixcli": [{**found, "late": 1.0, "first": 1.0}]})
            ],
        }
        for name, found in numbers.items()
    }
    page = "\n".join(serve_section({"scenarios": scenarios}, Machines()))
    assert "| tok/s | 210 |" in page
    assert (
        "| longest pause of a running answer, s | 0.81 | no interval | 1 | at most 1.50 | open, disturbed | 30% | M1 |"
        in page
    )
    assert page.count("Not a quiet machine") == 1
    assert STORIES.keys() == {*SCENARIOS, GATE} == {name for name, *_ in LIMITS}


def test_long_texts_are_long_and_begin_in_their_own_way() -> None:
    assert long_text(0)[:12] != long_text(1)[:12]
    assert 4 * N_LONG < len(long_text(0)) < 5 * N_LONG
    assert len(texts.messages(256)) == 256
