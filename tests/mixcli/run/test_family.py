"""Every architecture of the family answers through `mixcli run`: small models with random weights."""

import json
from pathlib import Path

import pytest

from quantize.source import text
from tests.conftest import Runner
from tests.support.family import FAMILY, parts_of, write_parts, write_small

TEMPLATE = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


@pytest.mark.parametrize("name", ["mistral3", "mistral4, gate and up in one", "deepseek2"])
def test_a_small_model_answers(tmp_path: Path, mixcli: Runner, name: str) -> None:
    metadata, tensors = parts_of(FAMILY[name])
    path = write_parts(
        tmp_path / "m.gguf", {**metadata, "tokenizer.chat_template": text(TEMPLATE)}, tensors, 0
    )
    done = mixcli("run", "-m", str(path), "--max-tokens", "8", "--ctx", "256", "a t1 b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_show_counts_shared_experts_apart(tmp_path: Path, mixcli: Runner) -> None:
    path = write_small(tmp_path / "m.gguf", "mistral4, gate and up in one")
    done = mixcli("show", str(path))
    assert "experts\t8, 2 used per token, and 1 shared by all\n" in done.stdout, done.stderr
    assert json.loads(mixcli("show", str(path), "--json").stdout)["experts_shared"] == 1
