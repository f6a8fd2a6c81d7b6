"""`mixcli chat --endpoint`: a chat with a strict server of another kind, which refuses fields that OpenAI's API does not have."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mixcli.chat.remote_model import split_label
from mixcli.chat.sessions import database_path
from tests.conftest import Runner
from tests.mixcli.chat.conftest import Stage
from tests.mixcli.chat.test_tools import ULM, calls

KNOWN = {"model", "messages", "stream", "stream_options", "temperature", "seed", "max_tokens", "tools"}
Events = list[dict[str, Any]]


def text(*pieces: str, **delta: str) -> Events:
    """Stream an answer's text, after a delta of its own."""
    deltas = [*([dict(delta)] if delta else []), *({"content": piece} for piece in pieces)]
    return [{"choices": [{"index": 0, "delta": one}]} for one in deltas]


class Server(ThreadingHTTPServer):
    """Answers with one list of events after the other, the last one for ever."""

    daemon_threads = True

    def __init__(self, answers: list[Events], models: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.models = answers, models
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": self.server.models}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"error": {"message": "no such path"}}')
            return
        self.server.keys.append(self.headers["Authorization"])
        self.server.requests.append(body)
        if unknown := body.keys() - KNOWN:
            self._send(400, json.dumps({"error": {"message": f"unrecognized: {sorted(unknown)}"}}).encode())
            return
        answers = self.server.answers
        events = answers.pop(0) if len(answers) > 1 else answers[0]
        reason = "tool_calls" if "tool_calls" in json.dumps(events) else "stop"
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}}
        lines = [*map(json.dumps, [*events, last, usage]), "[DONE]"]
        self._send(200, "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")

    def _send(self, status: int, raw: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def serving(*answers: Events, models: tuple[str, ...] = ("m1",)) -> Iterator[Server]:
    listed = [{"id": name, "max_model_len": 400} for name in models]
    with Server(list(answers) or [text("Hello", " there.")], listed) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_each_line_is_answered_by_the_server_and_nothing_but_openais_fields_is_sent(mixcli: Runner) -> None:
    with serving() as server:
        done = mixcli(
            "chat", "--endpoint", server.url, "--api-key-env", "KEY", "--seed", "3", stdin="Hi\nAgain\n", KEY="k1"
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "Hello there.\nHello there.\n"), done.stderr
        assert f"the text is sent to {server.url}" in done.stderr
        first, second = server.requests
        assert set(server.keys) == {"Bearer k1"}
        assert first.keys() == {"model", "messages", "stream", "stream_options", "seed"}
        assert first["model"] == "m1"
        assert [one["content"] for one in second["messages"]] == ["Hi", "Hello there.", "Again"]


def test_a_conversation_resumes_at_its_server_and_is_refused_elsewhere(mixcli: Runner) -> None:
    with serving(models=("m1", "m2")) as server:
        assert mixcli("chat", "--endpoint", server.url, "-m", "m2", "Hi").returncode == 0
        label = f"m2 at {server.url}"
        with sqlite3.connect(database_path()) as database:
            assert database.execute("SELECT model FROM session").fetchall() == [(label,)]
        done = mixcli("chat", "-c", "Again")
        assert done.returncode == 2
        assert (
            f"was answered by {label}; pass --endpoint {server.url}, or -m with an installed model"
            in done.stderr
        )
        assert mixcli("chat", "-c", "--endpoint", server.url, "Again").returncode == 0
        assert server.requests[-1]["model"] == "m2"
        assert len(server.requests[-1]["messages"]) == 3
        done = mixcli("chat", "--endpoint", server.url, "Hi")
        assert done.returncode == 2 and f"choose a model of {server.url} with -m: m1, m2" in done.stderr


def test_tools_run_and_reasoning_is_folded(mixcli: Runner, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        'def weather(city: str) -> str:\n    """Return the weather."""\n    return "Rain in " + city\n'
    )
    answers = [*calls(ULM)], text("It rains.", reasoning_content="Let me look at the sky.")
    with serving(*answers) as server:  # type: ignore[arg-type]
        tools = ("--tools", str(tmp_path / "tools.py"), "--yes")
        done = mixcli("chat", "--endpoint", server.url, *tools, "Weather?")
        assert (done.returncode, done.stdout) == (0, "It rains.\n"), done.stderr
        result = server.requests[1]["messages"][-1]
        assert result["role"] == "tool" and result["content"].startswith("Rain in Ulm")


def test_commands_about_the_placement_say_that_there_is_none(stage: Stage) -> None:
    with serving() as server:
        chat = stage.terminal("chat", "--endpoint", server.url, columns=120)
        chat.wait_for_prompt(1)
        for n, (line, said) in enumerate(
            [
                ("/plan", "so it has no plan"),
                ("/profile rtx-4090", "so it has no profile"),
                ("/profile", "so it has no profile"),
                ("/model", f"m1 at {server.url}, ready, context 400 tokens"),
                ("Hi", "Hello there."),
                ("/experts", "does not report its experts"),
                ("/context", "no such path"),
                ("/stats", "40 of 400 tokens (10 %)"),
                ("/model other", f"(loading other at {server.url}; the conversation continues with it)"),
                ("Hi", "Hello there."),
            ],
            1,
        ):
            chat.enter(line)
            chat.wait_for_prompt(n + 1)
            assert said in " ".join(chat.text.split()), chat.text
        assert [one["model"] for one in server.requests] == ["m1", "other"]
        assert "profile" not in chat.text.splitlines()[-1] and "keep-alive" not in chat.text
        chat.enter("/quit")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--endpoint", "http://127.0.0.1:9", "-m", "x"), 6, "cannot connect to 127.0.0.1:9"),
        (("--endpoint", "ftp://x"), 2, "not a valid server address"),
        (("--endpoint", "http://127.0.0.1:9", "--offline"), 2, "--offline cannot be combined with --endpoint"),
        (("--endpoint", "http://127.0.0.1:9", "--ctx", "512"), 2, "--ctx has no effect with --endpoint"),
        (("--endpoint", "http://127.0.0.1:9", "--draft", "x"), 2, "--draft has no effect with --endpoint"),
        (("--api-key-env", "KEY"), 2, "--api-key-env has no effect without --endpoint"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_asked(
    mixcli: Runner, args: tuple[str, ...], code: int, said: str
) -> None:
    done = mixcli("chat", *args, "Hi")
    assert (done.returncode, done.stdout) == (code, "") and said in done.stderr


def test_a_refused_message_is_told_and_the_chat_goes_on(mixcli: Runner) -> None:
    with serving() as server:
        done = mixcli("chat", "--endpoint", server.url, "--top-k", "5", stdin="Hi\n/set top_k default\nHi\n")
        assert done.returncode == 3 and "unrecognized: ['top_k']" in done.stderr
        assert done.stdout == "Hello there.\n"


def test_what_a_server_says_beside_the_text_breaks_no_chat(mixcli: Runner) -> None:
    odd = [
        *text("Hello."),
        {"choices": [{"index": 0, "delta": {}, "token_ids": [-1, 10**12]}], "dropped_messages": -3},
    ]
    with serving(odd) as server:
        done = mixcli("chat", "--endpoint", server.url, stdin="Hi\nAgain\n")
        assert (done.returncode, done.stdout) == (0, "Hello.\nHello.\n"), done.stderr
        assert len(server.requests[1]["messages"]) == 3


def test_a_label_tells_model_and_server() -> None:
    assert split_label("a at b at https://x/v1") == ("a at b", "https://x/v1")
    assert split_label("mixtral at home") == ("mixtral at home", "")


def test_arguments_that_could_be_misread_stay_a_text(mixcli: Runner, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "note"}]')
    for arguments in ("[" * 5000, '{"a": 1, "a": 2}', "{"):
        with serving(calls(("note", arguments))) as server:
            done = mixcli("run", "--endpoint", server.url, "--tools", str(tmp_path / "tools.json"), "Hi")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["arguments"] == arguments
