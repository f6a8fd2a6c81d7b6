"""Models of other families through the command line: Gemma answers, and a mixture with random weights shows what a person reads of it."""

import json
from pathlib import Path

import pytest

from quantize.source import u32
from tests.conftest import Runner
from tests.support import family_gguf
from tests.support.gemma import gemma_path

__all__ = ["gemma_path"]
NOTE = "mixcli is tested with the Mistral family only; a {} model runs as llama.cpp computes it, and its memory is what llama.cpp reports"


@pytest.mark.model
def test_gemma_answers_in_run_and_in_chat(gemma_path: Path, mixcli: Runner) -> None:
    load = ("-m", str(gemma_path), "--ctx", "512", "--max-tokens", "3", "--temperature", "0")
    done = mixcli("run", *load, "--stop", "\n", "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Paris"
    assert done.stderr.strip() == NOTE.format("gemma3")
    talk = mixcli("chat", *load, stdin="What is the capital of France?\nWhat is the capital of Italy?\n")
    assert talk.returncode == 0, talk.stderr
    first, second = talk.stdout.index("Paris"), talk.stdout.index("Rome")
    assert first < second
    assert "gemma3" not in talk.stderr, "it was said when the model was loaded"


def test_a_mixture_runs_and_says_what_it_is(mixcli: Runner, tmp_path: Path) -> None:
    path = family_gguf.write("gpt-oss", tmp_path / "tiny.gguf")
    load = ("-m", str(path), "--ctx", "512")
    first = mixcli("run", *load, "--max-tokens", "8", "--json", "a question")
    assert first.returncode == 0, first.stderr
    assert first.stderr.strip() == NOTE.format("gpt-oss")
    answer = json.loads(first.stdout)
    again = mixcli("run", *load, "--max-tokens", "8", "--json", "a question")
    assert json.loads(again.stdout)["text"] == answer["text"]
    assert again.stderr == ""
    shown = mixcli("show", str(path))
    assert f"note\t{NOTE.format('gpt-oss')}" in shown.stdout
    planned = json.loads(mixcli("plan", str(path), "--ctx", "512", "--json").stdout)
    assert planned["reasons"] == [NOTE.format("gpt-oss")]


def test_what_llama_cpp_does_not_survive_is_one_sentence(mixcli: Runner, tmp_path: Path) -> None:
    path = family_gguf.write("qwen3moe", tmp_path / "m.gguf", changes={"qwen3moe.expert_used_count": u32(9)})
    for command in ("run", "plan"):
        done = mixcli(command, *(("-m", str(path), "hi") if command == "run" else (str(path),)))
        assert done.returncode == 5
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("mixcli: m.gguf cannot be loaded: llama.cpp crashed on its header")
