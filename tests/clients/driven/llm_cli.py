"""llm: its command line with a chat model and a completion model, set up as its documentation says."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

Ask = Callable[..., str]


@pytest.fixture
def ask(tmp_path: Path, url: str, key: str, model: str, monkeypatch: pytest.MonkeyPatch) -> Ask:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"""
- model_id: chat
  model_name: {model}
  api_base: {url}
  api_key_name: mixcli
  supports_tools: true
  supports_schema: true
- model_id: completion
  model_name: {model}
  api_base: {url}
  api_key_name: mixcli
  completion: true
"""
    )
    (tmp_path / "keys.json").write_text(f'{{"mixcli": "{key}"}}')
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))

    def ask(*args: str) -> str:
        from llm.cli import cli  # it reads its settings when it is imported first

        done = CliRunner().invoke(cli, args)
        assert done.exit_code == 0, done.output
        return done.stdout

    return ask


GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "12")


def test_a_chat_model(ask: Ask) -> None:
    asked = ("-m", "chat", "What is the capital of France?", *GREEDY)
    assert "Paris" in ask(*asked)
    assert "Paris" in ask(*asked, "--no-stream")
    assert ask("-c", "And of Italy?", *GREEDY)


def test_a_completion_model(ask: Ask) -> None:
    asked = ("-m", "completion", "The capital of France is", *GREEDY)
    assert "Paris" in ask(*asked)
    assert "Paris" in ask(*asked, "--no-stream")


def test_a_schema(ask: Ask) -> None:
    assert '"nights"' in ask("-m", "chat", "Plan a trip.", "--schema", "nights int", "-o", "max_tokens", "40")
