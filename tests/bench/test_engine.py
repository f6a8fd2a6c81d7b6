"""bench.engine: the client reads what a host says, an engine is fed and counted, the page shows what was measured."""

from pathlib import Path

import pytest

from bench.engine import texts
from bench.engine.client import ask_all, stream
from bench.engine.ours import Load, Tally, measure
from bench.engine.page import engine_rows, engine_section
from bench.engine.scenario import Scenario
from bench.engine.servers import mixcli_host
from bench.engine.subject import Setting, Subject
from bench.estimate import Estimate, Finding, Promise, findings
from bench.page import Machines, promise_table, summary
from bench.peers import Peers
from profiles.placement import Placement
from tests.support.bench_machine import MACHINE
from tests.support.synthetic import resized, shape_named, write_model

PLACEMENT = Placement(n_ctx=512, n_batch=256, n_ubatch=256, n_seq_max=8, n_threads=1, n_threads_batch=1)
FASTER = Promise("rate", ("a", "rate"), ("b", "rate"), "at least", 1.5)
LESS = Promise("time", ("a", "late"), ("a", "early"), "at most", 1.3, ("demo",))


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("bench")
    path = write_model(folder / "tiny.gguf", resized(shape_named("mixtral-8x7b", 2), 512, 512))
    return Setting(Subject("tiny", path, is_small=True), Peers(folder), folder)


def test_a_promise_is_given_for_some_models() -> None:
    scenario = Scenario("name", "Title", lambda _: (), (FASTER, LESS))
    assert scenario.promised("demo") == (FASTER, LESS)
    assert scenario.promised("true-shape") == (FASTER,)


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
    rounds = {
        "mixcli": [{"decode": 44.04, "others": 0.1}, {"decode": 45.0, "others": 0.0}],
        "llama-bench": [{"decode": 45.0, "others": 0.0}, {"decode": 45.0, "others": 0.0}],
    }
    decode = Promise("decode", ("mixcli", "decode"), ("llama-bench", "decode"), "at least", 0.97)
    older = {"what": "prefill", "ratio": 0.96, "sign": "at least", "limit": 0.97, "kept": False}
    disturbed = {**older, "what": "late", "others": 0.2}
    promises = [*(one.to_data() for one in findings([decode], rounds)), older, disturbed]
    found = {"machine": MACHINE, "rounds": rounds, "promises": promises}
    result = {"scenarios": {"single": {"demo": found}}}
    machines = Machines()
    lines = engine_section(result, machines)
    assert "| mixcli | 44.5 | 5% |" in lines
    assert "| decode | 0.99x | 0.98 to 1.00, range | 2 | at least 0.97x | kept | 10% | M1 |" in lines
    assert (
        "| prefill | 0.96x | no interval | 2 | at least 0.97x | not kept, no interval | 10% | M1 |" in lines
    )
    assert "| late | 0.96x | no interval | 2 | at least 0.97x | open, disturbed | 20% | M1 |" in lines
    assert any("machine M1" in line for line in lines)
    assert any("M1" in line and "a fast one" in line and "Linux 6" in line for line in machines.legend())
    top = summary(list(engine_rows(result)), machines)
    assert top[0].startswith("3 promises: 1 not kept, 1 open, 1 kept. Without interval: 2 (")
    assert top[0].endswith("Open because other programs ran meanwhile: 1.")
    assert [line.split(" | ")[1] for line in top if "One stream" in line] == ["prefill", "late", "decode"]
    assert [line for line in top if line.startswith("#")] == ["### Not kept", "### Open", "### Kept"]


def test_a_number_is_shown_in_the_digits_that_tell_it_from_its_limit() -> None:
    near = Finding("near", Estimate(0.9689, 0.9689, 0.98, 10), "at least", 0.97, "x")
    (line,) = [line for line in promise_table([near], "M1") if "near" in line]
    assert "| 0.969x | 0.969 to 0.98 |" in line
