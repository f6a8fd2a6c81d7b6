"""bench.engine: turns are fair, ratios are what was promised, the client reads what a host says."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.engine import texts
from bench.engine.client import ask_all, stream
from bench.engine.ours import Load, Tally, measure
from bench.engine.page import engine_section
from bench.engine.scenario import Promise, Scenario, Side, best, medians, take_turns
from bench.engine.servers import mixcli_host
from bench.engine.subject import Setting, Subject
from bench.peers import Peers
from bench.process import watch
from profiles.placement import Placement
from tests.support.synthetic import resized, shape_named, write_model

PLACEMENT = Placement(n_ctx=512, n_batch=256, n_ubatch=256, n_seq_max=8, n_threads=1, n_threads_batch=1)
FASTER = Promise("rate", ("a", "rate"), ("b", "rate"), "at least", 1.5)
LESS = Promise("time", ("a", "late"), ("a", "early"), "at most", 1.3, ("demo",))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("bench")
    path = write_model(folder / "tiny.gguf", resized(shape_named("mixtral-8x7b", 2), 512, 512))
    return Setting(Subject("tiny", path, is_small=True), Peers(folder), folder)


def test_ratios_are_taken_in_each_round() -> None:
    rounds = {
        "a": [{"rate": 10.0}, {"rate": 30.0}, {"rate": 20.0}],
        "b": [{"rate": 10.0}, {"rate": 10.0}, {"rate": 10.0}],
    }
    assert FASTER.ratio(rounds) == 2.0
    assert FASTER.is_kept(2.0)
    assert not FASTER.is_kept(1.49)
    assert not LESS.is_kept(1.31)
    assert LESS.ratio(rounds) is None
    assert FASTER.ratio({"a": rounds["a"]}) is None


def test_a_promise_is_given_for_some_models() -> None:
    scenario = Scenario("name", "Title", lambda _: (), (FASTER, LESS))
    assert scenario.promised("demo") == (FASTER, LESS)
    assert scenario.promised("true-shape") == (FASTER,)


def test_everybody_comes_first_once() -> None:
    order: list[str] = []
    sides = [Side(name, lambda name=name: order.append(name) or {"rate": len(order)}) for name in "abc"]  # type: ignore[misc]
    *_, rounds = take_turns(sides, 3)
    assert "".join(order) == "abcbcacab"
    assert medians(rounds["a"])["rate"] == 6
    assert all(0 <= numbers["others"] <= 1 for numbers in rounds["a"])


def test_the_best_setting_is_chosen() -> None:
    sides = [Side(str(value), lambda value=value: {"rate": value}) for value in (3, 5, 4)]  # type: ignore[misc]
    assert best(sides, "rate").name == "5"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_others_are_those_that_do_not_end_with_the_block() -> None:
    burn = [sys.executable, "-c", "while True: pass"]
    with watch() as share:
        other = subprocess.Popen(burn)
        time.sleep(1)
    other.kill()
    other.wait()
    assert share.others > 0.02


def test_texts_differ_and_are_short() -> None:
    messages = texts.messages(256)
    assert len(set(messages)) == 256
    assert max(map(len, messages)) < 120
    assert len({texts.opening(number)[:6] for number in range(64)}) > 32
    assert len({len(texts.turn(number).split()) for number in range(12)}) <= 3


def test_an_engine_is_fed_and_counted(setting: Setting) -> None:
    (tally,) = measure(setting.subject.path, PLACEMENT, [Load(3, 10, 5, n_at_once=2)])
    assert (tally.n_requests, tally.n_prompt, tally.n_generated) == (3, 30, 15)
    assert tally.total_rate == pytest.approx(45 / tally.seconds)
    assert tally.decode_rate > 0


def test_rates_are_of_the_right_tokens() -> None:
    tally = Tally(4.0, n_prompt=100, n_generated=22, seconds_prefill=2.0, seconds_decode=5.0, n_requests=2)
    assert (tally.prefill_rate, tally.decode_rate, tally.total_rate) == (50.0, 4.0, 30.5)


def test_the_client_asks_a_host(setting: Setting, home: Path) -> None:
    body = {
        "messages": [{"role": "user", "content": "a fox"}],
        "max_tokens": 5,
        "logit_bias": setting.subject.ends,
    }
    with mixcli_host(setting, PLACEMENT, home) as socket:
        seconds, answers = ask_all(socket, [body, body, body], 2)
        one = stream(socket, body)
        with pytest.raises(SystemExit, match="answered 400"):
            ask_all(socket, [{"messages": []}], 1)
    assert seconds > 0
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [5, 5, 5]
    assert one.last["usage"]["completion_tokens"] == 5
    assert 0 < one.seconds_first <= one.seconds
    assert not list(home.rglob("*.sock"))


def test_the_page_says_what_was_measured() -> None:
    result = {
        "scenarios": {
            "single": {
                "demo": {
                    "machine": {"cpu": "a fast one"},
                    "medians": {
                        "mixcli": {"decode": 44.04, "others": 0.01},
                        "llama-bench": {"decode": 45.0, "others": 0.0},
                    },
                    "rounds": {"mixcli": [{"decode": 44.04, "others": 0.2}]},
                    "promises": [
                        {"what": "decode", "ratio": 0.979, "sign": "at least", "limit": 0.97, "kept": True}
                    ],
                }
            }
        }
    }
    lines = engine_section(result, lambda machine: str(machine["cpu"]))
    assert "| mixcli | 44 | 1% |" in lines
    assert "| decode | 0.98x | at least 0.97x | yes |" in lines
    assert any("a fast one" in line and "Not a quiet machine" in line for line in lines)
