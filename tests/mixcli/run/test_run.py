"""mixcli run, ps, stop, list, show and pull with the demo, as a person and a script use them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.planning.machines import detected_profile
from mixcli.system import process_state
from mixcli.system.paths import runtime_dir
from quantize import Options, convert
from tests.conftest import Runner
from tests.support.checkpoints import write_checkpoint
from tests.support.traces import CAPITAL as CAPITAL_TRACE

pytestmark = pytest.mark.model
CAPITAL = "What is the capital of France?"
STORY = "Tell me a very long story about the sea."


def hosts_started() -> list[Path]:
    return list(runtime_dir().glob("*.log"))


def start(*args: str, stdin: int | None = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mixcli", *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_pipe_gets_the_answer_and_nothing_else(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli("run", "-m", "demo", stdin=CAPITAL + "\n")
    assert done.returncode == 0, done.stderr
    assert len(hosts_started()) == 1
    assert CAPITAL_TRACE.matches(done.stdout)
    assert done.stdout.endswith("\n")
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""
    again = mixcli("run", "-m", "demo", "--json", stdin=CAPITAL)
    answer = json.loads(again.stdout)
    assert answer["text"].strip() == done.stdout.strip()
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 3
    assert answer["timings"]["predicted_per_second"] > 0


def test_the_only_model_needs_no_name_and_piped_text_comes_first(warm: Runner) -> None:
    done = warm("run", "Repeat the word above.", "--json", "--max-tokens", "8", stdin="banana")
    assert done.returncode == 0, done.stderr
    alone = warm("run", "Repeat the word above.", "--json", "--max-tokens", "8")
    more = (
        json.loads(done.stdout)["usage"]["prompt_tokens"] - json.loads(alone.stdout)["usage"]["prompt_tokens"]
    )
    assert 1 <= more <= 5


def test_stats_and_stop_texts(warm: Runner) -> None:
    done = warm("run", CAPITAL, "--stats", "--stop", "Paris")
    assert "Paris" not in done.stdout
    assert "finish reason stop" in done.stderr


def test_speculate_is_off_on_a_cpu_and_says_so(warm: Runner) -> None:
    ask = ("run", "Repeat: one two three one two three one two three", "--max-tokens", "12", "--json")
    plain, drafted = warm(*ask), warm(*ask, "--speculate")
    assert drafted.returncode == 0, drafted.stderr
    assert "speculate is off: on a CPU verifying a guess takes nearly as long" in drafted.stderr
    assert "speculate" not in plain.stderr
    assert not json.loads(drafted.stdout)["timings"].get("draft_n")


def test_a_reader_that_leaves_early_is_no_tragedy(warm: Runner) -> None:
    command = f"{sys.executable} -m mixcli run '{STORY}' | head -c 1; echo \"${{PIPESTATUS[0]}}\""
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.stderr == ""
    assert done.stdout[1:].strip() == "141"


@pytest.mark.slow
def test_ps_shows_it_and_stop_unloads_it(mixcli: Runner, with_demo: Path) -> None:
    for _ in range(3):
        assert mixcli("run", CAPITAL, "--max-tokens", "2").returncode == 0
    (loaded,) = json.loads(mixcli("ps", "--json").stdout)
    assert loaded["model"] == "demo:Q4_K_M"
    assert 200 < loaded["expires_in"] <= 300
    assert "demo:Q4_K_M" in mixcli("ps").stdout
    assert mixcli("stop", "demo").returncode == 0
    assert mixcli("ps", "--json").stdout.strip() == "[]"
    assert process_state.state(loaded["pid"]) == "", (
        "it runs, or is more than a zombie that init has not waited for yet"
    )


@pytest.mark.slow
def test_keep_alive_0_leaves_nothing_even_at_once(mixcli: Runner, with_demo: Path) -> None:
    for _ in range(3):
        assert mixcli("run", CAPITAL, "--keep-alive", "0", "--max-tokens", "2").returncode == 0
        assert mixcli("ps", "--json").stdout.strip() == "[]"


@pytest.mark.slow
def test_keep_alive_0_leaves_the_model_to_others(mixcli: Runner, with_demo: Path) -> None:
    assert mixcli("run", CAPITAL, "--max-tokens", "2").returncode == 0
    (loaded,) = json.loads(mixcli("ps", "--json").stdout)
    asking = start("run", STORY, "--max-tokens", "120")
    assert asking.stdout is not None
    assert asking.stdout.read(1)
    assert mixcli("run", CAPITAL, "--keep-alive", "0", "--max-tokens", "2").returncode == 0
    asking.communicate(timeout=120)
    assert asking.returncode == 0
    assert process_state.state(loaded["pid"]) != ""


@pytest.mark.slow
def test_a_host_killed_in_an_answer_is_exit_7_and_the_next_run_works(mixcli: Runner, with_demo: Path) -> None:
    assert mixcli("run", CAPITAL, "--max-tokens", "2").returncode == 0
    (loaded,) = json.loads(mixcli("ps", "--json").stdout)
    asking = start("run", STORY, "--max-tokens", "2000")
    assert asking.stdout is not None
    assert asking.stdout.read(1)
    os.kill(loaded["pid"], signal.SIGKILL)
    _, err = asking.communicate(timeout=60)
    assert asking.returncode == 7
    assert err.count("\n") == 1
    assert "the model process crashed during the answer" in err
    assert CAPITAL_TRACE.matches(mixcli("run", CAPITAL).stdout)


@pytest.mark.slow
def test_ctrl_c_is_exit_130_at_once(mixcli: Runner, with_demo: Path) -> None:
    assert mixcli("run", CAPITAL, "--max-tokens", "2").returncode == 0
    asking = start("run", STORY, "--max-tokens", "2000")
    assert asking.stdout is not None
    assert asking.stdout.read(1)
    asking.send_signal(signal.SIGINT)
    out, err = asking.communicate(timeout=60)
    assert asking.returncode == 130
    assert len(out.split()) < 300, "the answer was not waited for"
    assert "Traceback" not in err


def test_list_and_show_say_what_it_is(mixcli: Runner, with_demo: Path) -> None:
    (listed,) = json.loads(mixcli("list", "--json").stdout)
    assert listed["model"] == "demo:Q4_K_M"
    assert "not by Mistral AI" in listed["description"]
    assert "Apache-2.0" in mixcli("list").stdout
    facts = json.loads(mixcli("show", "demo", "--json").stdout)
    assert (facts["experts"], facts["experts_used"], facts["layers"]) == (8, 2, 30)
    assert facts["active_parameters"] < facts["parameters"]
    assert facts["sha256"] == listed["sha256"]
    assert "Apache-2.0" in mixcli("show").stdout


def test_a_pull_of_what_is_there_is_quick_and_says_so(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli("pull", "demo")
    assert done.returncode == 0
    assert "already installed" in done.stderr
    assert "try it: mixcli chat -m demo:Q4_K_M" in done.stderr
    assert "not by Mistral AI" in done.stderr
    assert "Apache-2.0" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>sorry</html>" * 10, "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"GGUF\x03\0\0\0", "only 8 bytes"),
    ],
)
def test_a_file_that_is_no_model_never_starts_a_host(
    mixcli: Runner, home: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    done = mixcli("run", "-m", str(path), "hi")
    assert (done.returncode, done.stdout) == (5, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert hosts_started() == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small sound Mixtral."""
    folder = tmp_path_factory.mktemp("tiny")
    convert(write_checkpoint(folder / "checkpoint"), folder / "tiny.gguf", Options(output_type="Q8_0"))
    return (folder / "tiny.gguf").read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.expert_used_count", 0),
        ("llama.expert_used_count", 5),
        ("llama.block_count", 0),
        ("llama.block_count", 1 << 30),
        ("llama.expert_count", 1 << 30),
    ],
)
def test_a_header_that_would_abort_llama_cpp_never_starts_a_host(
    mixcli: Runner, home: Path, tmp_path: Path, tiny: bytes, key: str, value: int
) -> None:
    at = tiny.index(key.encode()) + len(key) + 4  # behind the key stands the type, then the number
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny[:at] + value.to_bytes(4, "little") + tiny[at + 4 :])
    done = mixcli("run", "-m", str(path), "hi")
    assert (done.returncode, done.stdout) == (5, "")
    assert str(value) in done.stderr.replace(",", "")
    assert done.stderr.count("\n") == 1
    assert hosts_started() == []


@pytest.mark.slow
def test_a_build_that_crashes_is_run_without_what_crashes_and_that_is_said_once(
    mixcli: Runner, with_demo: Path
) -> None:
    profile = with_demo / "config/profiles/repacker.toml"
    profile.parent.mkdir(parents=True)
    rates = "decode = {0}\nexperts = [{0}, {0}]\ndense = [{0}, {0}]\n"
    with profile.open("w") as file:
        file.write(detected_profile())
        for type_ in ("Q4_K", "Q5_0", "Q6_K"):
            file.write(
                f"[host.rates.{type_}]\n{rates.format(0.01)}[host.rates.{type_}.repacked]\n{rates.format(0.9)}"
            )
    asked = ("run", CAPITAL, "--keep-alive", "0", "--profile", "repacker")
    first = mixcli(*asked, MIXCLI_SELFTEST_CRASH="1")
    assert (first.returncode, CAPITAL_TRACE.matches(first.stdout)) == (0, True), first.stderr
    assert "crash on this CPU" in first.stderr
    second = mixcli(*asked, MIXCLI_SELFTEST_CRASH="1")
    assert (second.returncode, second.stderr) == (0, "")


def test_a_model_cut_short_is_exit_5(mixcli: Runner, home: Path, with_demo: Path, tmp_path: Path) -> None:
    source = with_demo / "data/models/demo--Q4_K_M/demo-Q4_K_M.gguf"
    path = tmp_path / "cut.gguf"
    with source.open("rb") as file:
        path.write_bytes(file.read(20_000_000))
    done = mixcli("run", "-m", str(path), "hi")
    assert (done.returncode, done.stdout) == (5, "")
    assert "cut.gguf" in done.stderr
    assert hosts_started() == []


def test_a_context_that_does_not_fit_is_exit_4(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli("run", "--ctx", "1000000", "hi")
    assert (done.returncode, done.stdout) == (4, "")
    assert "exceeds the trained context of 8192 tokens" in done.stderr
