"""mixcli run with the demo: files, templates, forms, lines, long texts, and everything that a pipe may carry."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.client.openai import HostClient
from mixcli.system.paths import runtime_dir
from tests.conftest import Runner

pytestmark = pytest.mark.model
FEW = ("--max-tokens", "8", "--ctx", "1024")


def n_done() -> int:
    (socket,) = runtime_dir().glob("*.sock")
    return HostClient(socket).health().counts.n_requests_done


def test_labels_their_probabilities_and_abstaining(warm: Runner) -> None:
    ask = ("run", "The capital of France is called?", "--choice", "Rome,Paris,London", "--ctx", "1024")
    assert warm(*ask).stdout == "Paris\n"
    answer = json.loads(warm(*ask, "--json").stdout)
    assert answer["result"] == answer["text"] == "Paris"
    assert list(answer["label_probs"]) == ["Rome", "Paris", "London"]
    assert sum(answer["label_probs"].values()) == pytest.approx(1)
    assert warm(*ask, "--abstain", "1").stdout == "abstain\n"
    assert json.loads(warm(*ask, "--abstain", "1", "--json").stdout)["result"] is None


def test_json_regex_and_grammar(warm: Runner) -> None:
    done = warm(
        "run", "Anna is 34 years old.", "--schema", "name, age int", "--max-tokens", "60", "--ctx", "1024"
    )
    assert isinstance(json.loads(done.stdout)["age"], int)
    asked = warm("run", "When?", "--regex", "[0-9]{4}-[0-9]{2}", *FEW)
    assert re.fullmatch(r"\d{4}-\d{2}\n", asked.stdout)
    asked = warm("run", "Yes or no?", "--grammar", 'root ::= ("yes" | "no") "!"', *FEW)
    assert asked.stdout in ("yes!\n", "no!\n")
    bad = warm("run", "x", "--regex", "[0-9", *FEW)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.count("\n") == 1


def test_files_templates_and_variables_reach_the_model(warm: Runner, tmp_path: Path) -> None:
    """The tokens of the prompt are counted: what was said in two ways has as many."""

    def n_prompt(*args: str, stdin: str = "") -> int:
        done = warm("run", *args, *FEW, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["usage"]["prompt_tokens"])

    one, two, template = tmp_path / "one.txt", tmp_path / "two.txt", tmp_path / "t.txt"
    one.write_text("First text.\n")
    two.write_text("Second text.\n")
    template.write_text("Into {{ lang }}: {{ stdin }}\n")
    said = n_prompt("First text.\n\nSecond text.\n\nSummarise.")
    assert n_prompt("Summarise.", "-f", str(one), "-f", str(two)) == said
    assert n_prompt("Summarise.", "-f", str(two), stdin="First text.\n") == said
    assert n_prompt("-t", str(template), "-v", "lang=French", stdin="Good day") == n_prompt(
        "Into French: Good day"
    )
    lacking = warm("run", "-t", str(template), *FEW, stdin="x")
    assert (lacking.returncode, "{{ lang }} has no value" in lacking.stderr) == (2, True)


def test_a_persona_is_a_system_message_with_settings(warm: Runner, warm_home: Path) -> None:
    folder = warm_home / "config" / "personas"
    folder.mkdir(parents=True)
    (folder / "terse.toml").write_text(
        'system = "Answer in one word."\n[settings]\nmax_tokens = 3\noverflow = "error"\n'
    )

    def usage(*args: str) -> dict[str, int]:
        done = warm("run", "Name a river.", "--ctx", "1024", "--json", *args)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["usage"]
        return {"prompt": found["prompt_tokens"], "answer": found["completion_tokens"]}

    said = usage("--system", "Answer in one word.", "--max-tokens", "3")
    assert usage("--persona", "terse") == said
    assert usage("--persona", "terse", "--max-tokens", "2")["answer"] == 2, "what is said now counts more"
    missing = warm("run", "x", "--persona", "ters")
    assert (missing.returncode, "did you mean terse?" in missing.stderr) == (2, True)


def test_no_stream_gives_the_same_text(warm: Runner) -> None:
    # behind the first answer the prompt comes out of the cache, with the same rounding each time
    warm("run", "Name three rivers.", *FEW)
    streamed = warm("run", "Name three rivers.", *FEW)
    assert warm("run", "Name three rivers.", "--no-stream", *FEW).stdout == streamed.stdout


def test_each_line_has_one_line_in_order(warm: Runner, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("Spain\n")
    ask = (
        "run",
        "--each-line",
        "The capital of this country is called?",
        "--choice",
        "Paris,Rome,Madrid",
        "--ctx",
        "1024",
    )
    done = warm(*ask, "-f", str(more), stdin=b"\xef\xbb\xbfFrance\r\n\nItaly\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Paris", "Rome", "Madrid"]
    bad = warm(*ask, stdin=b"France\n\xff\xff\nItaly\n")
    assert bad.stdout.splitlines() == ["Paris", "", "Rome"]
    assert bad.returncode == 3
    assert "line 2: byte 1 of the line is not UTF-8 text" in bad.stderr
    assert "1 of 3 lines without an answer" in bad.stderr
    (tmp_path / "bad.txt").write_bytes(b"Italy\n\xff\n")
    several = warm(*ask, "-f", str(more), "-f", str(tmp_path / "bad.txt"))
    assert several.stdout.splitlines() == ["Madrid", "Rome", ""]
    assert f"line {tmp_path / 'bad.txt'}:2: byte 1 of the line is not UTF-8 text" in several.stderr
    rows = warm(*ask, "--json", stdin=b"France\n").stdout
    assert json.loads(rows)["label_probs"]["Paris"] > 0.5


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"", 2, "no prompt and no piped text"),
        (b" \r\n\t\n", 2, "no prompt and no piped text"),
        (b"\xef\xbb\xbfHello\r\n", 0, ""),
        (b"caf\xe9 \xff\xfe", 0, "3 bytes of the input are not UTF-8"),
        (b"a\0b", 2, "is not text: byte 2 is NUL"),
        (b"\xed\xa0\x80 half a pair", 0, "3 bytes of the input are not UTF-8"),
        (b"[INST] </s> <|im_start|>system", 0, ""),
    ],
)
def test_whatever_a_pipe_carries(warm: Runner, raw: bytes, code: int, words: str) -> None:
    done = warm("run", *FEW, stdin=raw)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout.strip()) == (code == 0)


def test_a_prompt_that_is_no_text_in_the_arguments(warm: Runner) -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"mixcli", b"run", b"caf\xe9?", *(word.encode() for word in FEW)],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_closed_streams(warm: Runner) -> None:
    """stdin closed: the prompt is enough. stdout closed: one sentence."""
    for closed, code, words in (("<&-", 0, ""), (">&-", 1, "standard output is closed")):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "mixcli", "run", "Hello", *FEW],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_more_than_any_context_holds_is_refused_before_a_model_is_loaded(
    mixcli: Runner, with_demo: Path
) -> None:
    command = f'head -c 1000000000 <(yes) | {sys.executable} -m mixcli run; echo "${{PIPESTATUS[1]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "2\n"
    assert "the piped text is larger than 268,435,456 bytes" in done.stderr
    assert not list(runtime_dir().glob("*.log"))


def long_text(n_bytes: int) -> str:
    chance = random.Random(5)
    words = [
        "river",
        "stone",
        "lamp",
        "window",
        "morning",
        "paper",
        "engine",
        "garden",
        "music",
        "letter",
        "market",
        "winter",
        "bridge",
    ]
    paragraphs = []
    n = 0
    while sum(map(len, paragraphs)) < n_bytes:
        n += 1
        sentences = (" ".join(chance.choices(words, k=9)).capitalize() + "." for _ in range(6))
        paragraphs.append(f"Paragraph {n}. {' '.join(sentences)}")
    return "\n\n".join(paragraphs)


@pytest.mark.slow
def test_a_long_text_is_read_in_parts_each_once_and_combined(mixcli: Runner, with_demo: Path) -> None:
    text = long_text(5_500)
    ask = ("run", "Summarise the text.", "--ctx", "1024", "--max-tokens", "40")
    refused = mixcli(*ask, stdin=text)
    assert refused.returncode == 4
    found = re.search(
        r"the prompt is too long: ([\d,]+) tokens, ([\d,]+) more than the maximum context length of 1,024",
        refused.stderr,
    )
    assert found, refused.stderr
    n_prompt, n_more = (int(number.replace(",", "")) for number in found.groups())
    assert n_prompt - n_more == 1024
    before = n_done()
    done = mixcli(*ask, "--on-overflow", "map-reduce", "--stats", stdin=text, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    parts = int(re.search(r"combining the answers to (\d+) parts", done.stderr)[1])  # type: ignore[index]
    assert n_prompt / 1024 < parts < 2.5 * n_prompt / 1024
    assert n_done() - before == parts + 1, "every part once, and the whole"
    short = mixcli("run", "Summarise.", "--on-overflow", "map-reduce", *FEW, stdin="A short text.")
    assert (short.returncode, "parts" in short.stderr) == (0, False)


def test_what_map_reduce_needs_is_said(warm: Runner) -> None:
    done = warm("run", "Summarise.", "--on-overflow", "map-reduce", *FEW)
    assert (done.returncode, "pass some" in done.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(mixcli: Runner, home: Path, shell: str) -> None:
    done = mixcli("run", "--print-completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_MIXCLI_COMPLETE" in done.stdout
    assert f"{shell}_complete" in done.stdout


def test_completion_knows_commands_options_models_and_files(mixcli: Runner, with_demo: Path) -> None:
    def complete(*words: str) -> list[str]:
        done = mixcli(
            COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1), _MIXCLI_COMPLETE="bash_complete"
        )
        return done.stdout.split()

    assert complete("mixcli", "bat") == ["plain,batch"]
    assert complete("mixcli", "run", "-m", "de") == ["plain,demo", "plain,demo:Q4_K_M"]
    assert complete("mixcli", "run", "-m", "./x") == ["file,./x"]
    assert "plain,--on-overflow" in complete("mixcli", "run", "--on")
    assert complete("mixcli", "batch", "ma") == ["file,ma"]
    assert mixcli("run", "--print-completion", SHELL="/bin/bash").stdout.startswith("_mixcli_completion")


def test_the_warm_way_imports_only_what_it_needs(mixcli: Runner, with_demo: Path) -> None:
    assert mixcli("run", "Hello", *FEW).returncode == 0
    code = (
        "import sys; sys.argv = ['mixcli', 'run', 'Hello', '--ctx', '1024', '--choice', 'a,b']\n"
        "from mixcli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'gguf', 'rich', 'llama_cpp', 'fastapi', 'pydantic', 'huggingface_hub', 'httpx2', 'asyncio', 'uvicorn', 'ray',"
        " 'profiles.planner', 'profiles.placement', 'sqlite3', 'jinja2', 'http', 'ssl', 'email', 'secrets',"
        " 'difflib', 'subprocess', 'logging', 'concurrent.futures'} & set(sys.modules)\n"
        "own = [m for name, m in sys.modules.items() if name.split('.')[0] in ('mixcli', 'profiles', 'quantize')]\n"
        "slow = {c for m in own for c in vars(m).values() if isinstance(c, type) and '__dataclass_fields__' in vars(c)}\n"
        "if len(slow) > 10: heavy.add(f'{len(slow)} dataclasses, which are slow to make: {slow}')\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("a\n", "b\n")


@pytest.mark.slow
def test_fifty_calls_load_the_model_once(mixcli: Runner, with_demo: Path) -> None:
    for _ in range(50):
        done = mixcli("run", "--choice", "yes,no", "Is it?", "--ctx", "1024")
        assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr
    assert n_done() == 50
    assert len(list(runtime_dir().glob("*.log"))) == 1
