"""The model process is killed again and again under load: each client gets its answer or one sentence, and nothing is left of those that were cut."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from mixcli.client.process import hosts
from tests.support.served import Served
from tests.support.waiting import wait_for

N_KILLS, N_CLIENTS = 20, 6


class Clients:
    """Clients of OpenAI's own package that ask until they are stopped; `ends` counts how answers ended, by class name."""

    def __init__(self, port: int) -> None:
        self.ends: Counter[str] = Counter()
        import openai  # takes a second

        self._api = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=0)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(N_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        self._api.close()

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                self.ends[self._ask(number)] += 1
            except Exception as error:
                self.ends[type(error).__name__] += 1

    def _ask(self, number: int) -> str:
        messages = [{"role": "user", "content": f"Client {number} asks for a long story."}]
        options = {"model": "tiny", "messages": messages, "max_tokens": 60}
        if number % 3 == 0:
            whole = self._api.chat.completions.create(**options)  # type: ignore[call-overload]
            return str(whole.choices[0].finish_reason)
        *_, last = self._api.chat.completions.create(**options, stream=True)  # type: ignore[call-overload]
        return str(last.choices[0].finish_reason)


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def resident(pid: int) -> int:
    """Bytes of a process that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


@pytest.mark.slow
def test_twenty_kills_under_load(served_tiny: Served) -> None:
    """APIError and its kinds are what the package makes of a refusal, an error event, and a cut connection."""
    pid = served_tiny.process.pid
    hello = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    assert served_tiny.ask("POST", "/v1/chat/completions", hello)[0] == 200
    files, memory = open_files(pid), 0
    clients = Clients(served_tiny.port)
    answered = {"stop", "length"}

    def done() -> int:
        return sum(clients.ends[end] for end in answered)

    try:
        for n in range(N_KILLS):
            before = done()
            wait_for(lambda before=before: done() >= before + N_CLIENTS)
            if n == 2:
                memory = resident(pid)
            (host,) = hosts()
            os.kill(host.pid, signal.SIGKILL)
    finally:
        clients.stop()
    assert set(clients.ends) <= answered | {"APIError", "APIConnectionError", "InternalServerError"}, (
        clients.ends
    )
    assert served_tiny.ask("POST", "/v1/chat/completions", hello)[0] == 200
    health = served_tiny.ask("GET", "/health")[1]
    assert (health["n_running"], health["n_waiting"]) == (0, 0)
    wait_for(lambda: open_files(pid) <= files)
    assert resident(pid) < 1.2 * memory + (8 << 20)
    assert len(hosts()) == 1
    code, err = served_tiny.end()
    assert (code, "Traceback" in err) == (0, False), err
