"""The processor's rates: measured by the library that computes, once, and never in the way of a plan."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mixcli.planning import cpu_rates, doctor
from mixcli.planning.machines import detected_profile, machine_of
from mixcli.system import json_cache, python_child
from mixcli.system.console import console
from mixcli.system.hardware import physical_cores
from mixcli.system.measurements import ProductLine
from profiles.machine import Gpu, Machine
from profiles.profile_files import load_profile
from profiles.rates import BITS_OF_TYPE, HostRates, write_rates
from profiles.typical import typical_rates
from tests.profiles.test_rates import MIXTURE

SOUND: dict[str, Any] = {"decode": 1.0, "experts": [1.0] * 3, "dense": [1.0] * 3}


@pytest.fixture
def measuring(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cpu_rates.SWITCH, "")
    monkeypatch.setattr(cpu_rates, "ROWS", 256)
    monkeypatch.setattr(cpu_rates, "MAX_TRIES", 1)  # other tests run beside this one
    monkeypatch.setattr(cpu_rates, "BYTES", 1 << 19)
    return home


@pytest.mark.slow
def test_what_a_plan_needs_is_measured_once_and_remembered(measuring: Path) -> None:
    assert cpu_rates.known_rates() == HostRates()
    said: list[str] = []
    rates = cpu_rates.host_rates(("Q4_K", "F32"), said.append)
    assert said == [
        "measuring this CPU once for planning, two or three seconds for each weight type: Q4_K, attention"
    ]
    (one,) = rates.types
    assert one.type == "Q4_K"
    assert one.plain.decode > 0.05
    assert all(rate > 1e-4 for rate in (*one.plain.experts, *one.plain.dense))
    assert rates.attention is not None
    assert min(*rates.attention.plain, *rates.attention.flash) > 1e-4
    assert cpu_rates.known_rates() == rates
    assert cpu_rates.host_rates(("Q4_K",), said.append) == rates
    assert len(said) == 1


@pytest.mark.slow
def test_a_profile_that_was_detected_has_them(measuring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rates, "COMMON", ("Q4_0",))
    folder = measuring / "config/profiles"
    folder.mkdir(parents=True)
    (folder / "here.toml").write_text(detected_profile())
    machine = load_profile("here", folder).machine()
    assert write_rates(machine.rates) == write_rates(cpu_rates.known_rates())
    assert [(one.type, one.origin) for one in machine.rates.types] == [("Q4_0", "profile")]


@pytest.mark.usefixtures("home")
def test_a_profile_without_rates_claims_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, is_off in (
        ("", False),
        ("on", False),
        ("off", True),
        ("0", True),
        ("No", True),
        ("False", True),
    ):
        monkeypatch.setenv(cpu_rates.SWITCH, value)
        assert cpu_rates.is_off() == is_off
    text = detected_profile()
    assert "This machine, measured" not in text
    assert "rates" not in text
    assert "the CPU was not measured, because MIXCLI_MEASURE is off" in capsys.readouterr().err


def test_kernels_that_die_leave_what_was_measured_before(
    measuring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child writes the plain layout, is killed at the repacked one, and no later start pays for another try."""
    rates_ = {"decode": 12.0, "experts": [0.1, 0.15, 0.2], "dense": [0.1, 0.15, 0.2]}
    line = {"type": "Q4_K", "second": False, "rates": rates_, "busy": False}
    code = f"import os; print({json.dumps(line)!r}, flush=True); print('{{', flush=True); os.abort()"
    starts: list[str] = []

    def run(*_: str, **how: Any) -> python_child.ChildResult:
        starts.append(how["stdin"])
        return python_child.finished(python_child.command("-c", code), **how)

    monkeypatch.setattr(cpu_rates.python_child, "run", run)
    said: list[str] = []
    rates = cpu_rates.host_rates(("Q4_K", "Q6_K"), said.append)
    assert [one.type for one in rates.types] == ["Q4_K"]
    assert rates.of("Q4_K", repacked=True) == rates.of("Q4_K", repacked=False)
    assert "Q6_K, attention could not be measured (killed by signal 6); estimates use typical ones" in said[1]
    assert cpu_rates.host_rates(("Q4_K", "Q6_K"), said.append) == rates
    assert len(starts) == 1
    assert cpu_rates.failures() == dict.fromkeys(("attention", "Q6_K"), "killed by signal 6")
    cpu_rates.host_rates(("Q6_K",), again=True)
    assert json.loads(starts[1])["types"] == ["Q6_K", "attention"]


def test_what_was_measured_beside_other_programs_is_measured_twice_more(
    measuring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes = (12.0, 14.0, 13.0, 11.0)
    rates_: dict[str, Any] = {"experts": [0.1, 0.15, 0.2], "dense": [0.1, 0.15, 0.2]}
    lines: list[dict[str, Any]] = [
        {"type": "Q4_K", "second": second, "rates": None if second else rates_, "busy": not second}
        for second in (False, True)
    ]
    attention: dict[str, Any] = {"type": "attention", "rates": [0.1, 0.1], "busy": True}
    lines += [{**attention, "second": second} for second in (False, True)]
    starts: list[list[str]] = []

    def run(*_: str, **how: Any) -> python_child.ChildResult:
        starts.append(json.loads(how["stdin"])["types"])
        rates_.update({"decode": decodes[len(starts) - 1]})
        code = "\n".join(f"print({json.dumps(line)!r})" for line in lines)
        return python_child.finished(python_child.command("-c", code), **how)

    monkeypatch.setattr(cpu_rates.python_child, "run", run)
    monkeypatch.setattr(cpu_rates, "MAX_TRIES", 3)
    clock = [time.time()]
    monkeypatch.setattr(cpu_rates.time, "time", lambda: clock[0])
    both = ["Q4_K", "attention"]
    said: list[str] = []
    for n_starts, best in ((1, 12.0), (2, 14.0), (3, 14.0), (3, 14.0)):
        for _ in range(2):  # once a start
            rates = cpu_rates.host_rates(("Q4_K",), said.append)
            assert starts == [both] * n_starts
            (one,) = rates.types
            assert (one.plain.decode, one.origin) == (best, "busy")
            assert rates.attention is not None
            assert rates.attention.origin == "busy"
        cpu_rates._here.clear()
        assert cpu_rates.host_rates(("Q4_K",)).of("Q4_K", repacked=False) == one.plain, "not so soon"
        assert starts == [both] * n_starts
        clock[0] += cpu_rates.REST
    again = "measuring this CPU again, because other programs ran the last time: Q4_K, attention"
    assert said == [
        "measuring this CPU once for planning, two or three seconds for each weight type: Q4_K, attention",
        again,
        again,
    ]
    for line in lines:
        line["busy"] = False
    (one,) = cpu_rates.host_rates(("Q4_K",), again=True).types
    assert (one.plain.decode, one.origin) == (11.0, "measured")
    starts.clear()
    cpu_rates.host_rates(("Q4_K",))
    assert starts == []


@pytest.mark.slow
def test_each_line_of_a_child_is_progress(measuring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps:
        seen: ClassVar[list[tuple[float, float]]] = []

        def update(self, done: float, total: float, stage: str = "") -> None:
            self.seen.append((done, total))

    monkeypatch.setattr(console, "progress", lambda *_, **__: nullcontext(Steps()))
    cpu_rates.host_rates(("Q4_0",))
    assert Steps.seen == [(done, 4) for done in range(5)]  # Q4_0 and attention in two layouts each


def test_a_second_measurement_that_fails_leaves_the_first(
    measuring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {**SOUND, "busy": 1}
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): {"Q4_K": entry}}))
    monkeypatch.setattr(cpu_rates, "MAX_TRIES", 3)
    monkeypatch.setattr(cpu_rates, "TIME_LIMIT", 0.1)
    monkeypatch.setattr(cpu_rates, "LIMIT_TYPE", 0.0)
    assert [one.type for one in cpu_rates.host_rates(("Q4_K",)).types] == ["Q4_K"]
    assert cpu_rates._known()["Q4_K"].items() >= {**entry, "busy": 2}.items()


def test_a_child_without_an_end_is_ended(measuring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rates, "TIME_LIMIT", 0.1)
    monkeypatch.setattr(cpu_rates, "LIMIT_TYPE", 0.0)
    said: list[str] = []
    assert cpu_rates.host_rates(("Q8_0",), said.append) == HostRates()
    assert (
        "(timed out); estimates use typical ones; run `mixcli doctor` on an idle machine to measure again"
        in said[1]
    )
    # a busy machine may be the reason
    cpu_rates._here.clear()
    assert cpu_rates._missing(["Q8_0"], again=False) == []
    monkeypatch.setattr(cpu_rates, "MAX_TRIES", 2)
    monkeypatch.setattr(cpu_rates, "REST", 0)
    assert cpu_rates._missing(["Q8_0"], again=False) == ["Q8_0", "attention"]
    line = ProductLine("Q8_0", False, SOUND, False)
    entry = cpu_rates._entry("Q8_0", [line, None], {}, "", cut=True)
    assert entry.items() >= {**SOUND, "busy": 1}.items()


@pytest.mark.slow
@pytest.mark.parametrize("is_file", [False, True])
def test_what_cannot_be_remembered_is_used_all_the_same(
    measuring: Path, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a process, with one sentence that says why: a folder in the file's place, or a file in the cache's."""
    measured: list[str] = []
    run = python_child.run

    def counted(*words: str, **how: Any) -> python_child.ChildResult:
        measured.append(how["stdin"])
        return run(*words, **how)

    monkeypatch.setattr(cpu_rates.python_child, "run", counted)
    if is_file:
        measuring.mkdir()
        (measuring / "cache").touch()
    else:
        (measuring / "cache/rates.json").mkdir(parents=True)
    said: list[str] = []
    rates = cpu_rates.host_rates(("Q4_0",), said.append)
    assert [one.type for one in rates.types] == ["Q4_0"]
    assert cpu_rates.known_rates() == cpu_rates.host_rates(("Q4_0",), said.append) == rates
    assert len(measured) == 1
    assert (
        said[0]
        == "measuring this CPU once for planning, two or three seconds for each weight type: Q4_0, attention"
    )
    (sentence,) = said[1:]
    assert f"{measuring / 'cache/rates.json'} cannot be written; set MIXCLI_HOME to" in sentence
    if is_file:
        (measuring / "cache").unlink()


def test_what_is_remembered_is_not_believed_but_measured_again(measuring: Path) -> None:
    sound = SOUND
    key = cpu_rates._key()
    for table in (
        [],
        {"Q4_K": 7},
        {"Q4_K": {**sound, "decode": -1}},
        {"Q4_K": {}, "attention": "fast"},
        {"Q4_K": {"failed": None}},
        {"Q9_K": sound},
        {"Q4_K": {**sound, "dense": [1.0, 1.0, "2"]}},
        {"Q4_K": {**sound, "repacked": True}},
    ):
        json_cache.update("rates", lambda known, table=table: known.update({key: table}))
        assert cpu_rates.known_rates() == HostRates()
        assert cpu_rates._missing(["Q4_K"], again=False) == ["Q4_K", "attention"]
        assert cpu_rates.failures() == {}


def test_what_was_measured_with_other_batches_is_measured_again(
    measuring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): {"Q4_K": SOUND}}))
    assert [one.type for one in cpu_rates.known_rates().types] == ["Q4_K"]
    monkeypatch.setattr(cpu_rates, "BATCHES", (16, 512))
    assert cpu_rates.known_rates() == HostRates()
    assert cpu_rates._missing(["Q4_K"], again=False) == ["Q4_K", "attention"]


def test_a_model_that_lies_on_the_card_needs_none(measuring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def measured(types: set[str], _: object) -> HostRates:
        asked.append(types)
        return HostRates()

    monkeypatch.setattr(cpu_rates, "host_rates", measured)
    room = MIXTURE.bytes_weights + 1
    cpu_rates.with_rates(Machine(1 << 40, 8, (Gpu("CUDA0", room),)), [MIXTURE])
    cpu_rates.with_rates(Machine(1 << 40, 8, (Gpu("MTL0", room, "metal"),), unified=True), [MIXTURE])
    assert asked == []
    cpu_rates.with_rates(Machine(1 << 40, 8, (Gpu("CUDA0", room // 2),)), [MIXTURE])
    cpu_rates.with_rates(Machine(1 << 40, 8), [MIXTURE])
    assert asked == [set(MIXTURE.types)] * 2


@pytest.mark.usefixtures("home")
def test_nothing_is_measured_where_that_is_off() -> None:
    said: list[str] = []
    assert cpu_rates.host_rates(MIXTURE.types, said.append) == HostRates()
    assert said == []
    assert machine_of(None, shapes=[MIXTURE]).rates == HostRates()


def test_doctor_search_and_profiles_tell_what_is_known(home: Path, mixcli: Callable[..., Any]) -> None:
    """A line a type, with what failed; rates of a machine that was not measured are marked."""
    (home / "config/profiles").mkdir(parents=True)
    rates = "decode = 7\nexperts = [0.1, 0.001]\ndense = [0.1, 0.1]\n"
    own = f"description = 'x'\n[host]\nram_gib = 64\ncores = 2\n[host.rates.Q4_K]\n{rates}"
    (home / "config/profiles/mine.toml").write_text(
        f"{own}[host.rates.attention]\nplain = [0.0002, 1]\nflash = [1, 1]\n"
    )
    shown = mixcli("profiles", "show", "mine").stdout.splitlines()
    assert {"unified memory\tno", "KV cache types\tf16", "micro-batch sizes\t512, 1024, 2048"} <= set(shown)
    assert "plain 0.0002 and 1 TFLOP/s" in shown[-1]
    assert "prefill 0.001 TFLOP/s" in shown[-2]
    search = ("search", "mistral-base")  # small enough for any machine
    assert "tok/s (typical)" in mixcli(*search).stdout
    assert "`mixcli plan MODEL` measures them" in mixcli(*search).stderr
    assert "usual" not in mixcli(*search, "--profile", "mine").stdout
    sound: dict[str, Any] = {"decode": 7.0, "experts": [1.0, 0.7, 0.5], "dense": [1.0] * 3}
    table = dict.fromkeys(BITS_OF_TYPE, sound) | {
        "Q4_K": {**sound, "busy": 3},
        "MXFP4": {"failed": "killed by signal 4"},
        "Q5_1": {},
    }
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): table}))
    assert "(busy machine)" not in mixcli(*search).stdout  # the quant that suits has no Q4_K
    busy = {name: {**sound, "busy": 3} for name in BITS_OF_TYPE}
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): busy}))
    assert "tok/s (busy machine)" in mixcli(*search).stdout
    assert "`mixcli doctor` measures it again" in mixcli(*search).stderr
    assert json.loads(mixcli(*search, "--json").stdout)[0]["busy_rates"]
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): table}))
    found = {one.what: one for one in doctor._processor()}
    assert (found["processor"].state, found["processor Q6_K"].words) == (
        "warn",
        "decode 7 GB/s, prefill 0.5 TFLOP/s",
    )
    assert "on an idle machine to measure again" in found["processor"].words
    assert found["processor Q4_K"].words.endswith("(while other programs ran)")
    assert "killed by signal 4" in found["processor MXFP4"].words
    assert "processor Q5_1" not in found


def test_what_other_programs_leave_of_the_processor_is_not_taken_for_the_processor(measuring: Path) -> None:
    hardly = {"decode": 1e-3, "experts": [1e-6] * 3, "dense": [1e-6] * 3}
    known = {"Q4_K": hardly, "attention": {"plain": [1e-6] * 2, "flash": [1e-6] * 2}}
    usual = typical_rates("avx2").scaled(physical_cores() / 4, math.inf)
    quiet = cpu_rates._usable(known)
    busy = cpu_rates._usable({name: {**found, "busy": 1} for name, found in known.items()})
    assert quiet.types[0].plain.decode == 1e-3
    assert busy.types[0].plain == next(one.plain for one in usual.types if one.type == "Q4_K")
    assert busy.attention is not None
    assert usual.attention is not None
    assert busy.attention.flash == usual.attention.flash
