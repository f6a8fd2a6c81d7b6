"""Twenty minutes of everything at once: `serve`, `run`, `batch`, `ps` and raw clients, while hosts are killed, frozen and stopped.

It runs in a home of its own that borrows the demo model of the store. Every command must end in bounded time with a code of the table;
at the end the server's memory and descriptors are what they were after the warm-up, and no process and no socket is left. Linux only.
Ends with 1 when something is not so.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench.chat import MIXCLI
from mixcli.system import paths

MINUTES, WARM_SHARE = 20.0, 0.2
N_CLIENTS = 6
COMMAND_SECONDS = 180.0  # that any command or request may take on two busy cores
FROZEN = (0.5, 4.0)  # seconds that a host is stopped by SIGSTOP before it goes on
CHAOS = (4.0, 12.0)  # seconds between two blows to a host
SETTLE_SECONDS = 60.0
MAX_GROWTH, MAX_DESCRIPTORS = 1.10, 8  # of the server's memory; more open files than after the warm-up

# 1: the client's own error, 3: records that failed while the host was killed, 6: busy, 7: the host was killed, 130: by our SIGINT
CODES = {0, 1, 3, 6, 7, 130, -signal.SIGKILL}

FEW = ["--max-tokens", "24"]
CHAT = "/v1/chat/completions"
STORY = {"messages": [{"role": "user", "content": "Tell me a story about the sea."}], "max_tokens": 40}
BODIES: tuple[dict[str, Any], ...] = (
    STORY,
    {**STORY, "temperature": 0, "logprobs": True, "top_logprobs": 2},
    {**STORY, "structured_outputs": {"choice": ["yes", "no", "perhaps later"]}},
    {**STORY, "structured_outputs": {"regex": "[a-z ]{5,30}"}, "speculate": True},
    {**STORY, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}},
    {**STORY, "messages": [{"role": "user", "content": "word " * 600}]},
    {**STORY, "messages": [{"role": "user", "content": "word " * 60_000}]},
    {**STORY, "temperature": -1},
    {**STORY, "structured_outputs": {"grammar": "root ::= root"}},
    {**STORY, "structured_outputs": {"choice": ["word " * 300, "no"]}},
    {"prompt": ["Once upon a time", "The sea"], "n": 2, "max_tokens": 20, "logprobs": 1},
    {"prompt": "Once upon a time", "echo": True, "logprobs": 0, "max_tokens": 8},
)  # fmt: skip


class Soak:
    """What the clients share: where to ask, what went wrong, and when to end."""

    def __init__(self, home: Path, minutes: float, seed: int) -> None:
        self.environment = {**os.environ, "MIXCLI_HOME": str(home), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        self.home, self.seed = home, seed
        self.ends_at = time.monotonic() + minutes * 60
        self.over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.port = 0
        self.quiet = threading.Lock()  # held while memory is looked at

    def command(self, *args: str, stdin: str = "", blow: random.Random | None = None) -> int:
        """Run a command; `blow` may interrupt or kill it. Its code, its time and its words are held to what is promised."""
        began = time.monotonic()
        with subprocess.Popen(
            [*MIXCLI, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        ) as process:
            if blow is not None and blow.random() < 0.4:
                threading.Timer(
                    blow.uniform(0.05, 6),
                    _signal,
                    (process.pid, blow.choice([signal.SIGINT, signal.SIGKILL])),
                ).start()
            try:
                _, words = process.communicate(stdin, COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                _, words = process.communicate()
                self.fault(f"{args[0]} had not ended after {COMMAND_SECONDS:.0f} s: {words[-500:]}")
        self.counts[f"{args[0]}: {process.returncode}"] += 1
        if process.returncode not in CODES or "Traceback" in words:
            self.fault(
                f"{' '.join(args)[:80]} ended with {process.returncode} after {time.monotonic() - began:.1f} s: {words[-2000:]}"
            )
        return process.returncode

    def fault(self, sentence: str) -> None:
        self.wrong.append(sentence)
        print(f"WRONG: {sentence}", flush=True)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# the clients: each does one thing and returns


def ask(soak: Soak, choose: random.Random) -> None:
    """Send one request to the server, and read it, or leave in the middle."""
    body = {**choose.choice(BODIES), "stream": choose.random() < 0.6, "seed": choose.randrange(1 << 30)}
    leaves = choose.random() < 0.3
    headers = {"Content-Type": "application/json"}
    if choose.random() < 0.2:
        headers["Idempotency-Key"] = str(choose.randrange(5))
    try:
        with closing(
            http.client.HTTPConnection("127.0.0.1", soak.port, timeout=COMMAND_SECONDS)
        ) as connection:
            path = "/v1/completions" if "prompt" in body else CHAT
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            soak.counts[f"request: {response.status}"] += 1
            if response.status not in (200, 400, 409, 502, 503):
                soak.fault(
                    f"a request was answered {response.status}: {response.read(500)!r}: {json.dumps(body)[:200]}"
                )
            for n, _ in enumerate(response):
                if leaves and n > 3:
                    return
    except TimeoutError:
        soak.fault(f"a request had no answer for {COMMAND_SECONDS:.0f} s: {json.dumps(body)[:200]}")
    except (OSError, http.client.HTTPException):
        soak.counts["request: cut off"] += 1


def half_a_request(soak: Soak, choose: random.Random) -> None:
    """Connect, send a part of a request, and disconnect."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{{"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", soak.port), 10) as connection:
        connection.sendall(head[: choose.randrange(len(head) + 1)].encode())
        time.sleep(choose.uniform(0, 1))
    soak.counts["half a request"] += 1


def run(soak: Soak, choose: random.Random) -> None:
    """Run one prompt, in one of its forms; it may be interrupted or killed."""
    form = choose.choice(
        [
            ["--choice", "good,bad"],
            ["--schema", "name, age int, city", "--speculate", *FEW],
            ["--json", *FEW],
            ["--each-line", *FEW],
            FEW,
        ]
    )
    soak.command(
        "run",
        "-m",
        "demo",
        *form,
        "What is it?",
        stdin="Anna is 30.\nShe lives in Rome.\n",
        blow=choose,
    )


def batch(soak: Soak, choose: random.Random) -> None:
    """Sort some lines until all are done, killed again and again."""
    folder = Path(tempfile.mkdtemp(dir=soak.home))
    records = folder / "in.txt"
    records.write_text(
        "".join(f"Text {n} is {choose.choice(['good', 'bad'])}.\n" for n in range(30)), "utf-8"
    )
    args = (
        "batch",
        str(records),
        "-m",
        "demo",
        "-o",
        str(folder / "out.jsonl"),
        "--choice",
        "good,bad",
        "--prompt",
        "Is it good? {{ text }}",
    )
    for _ in range(8):
        if soak.over.is_set() or soak.command(*args, blow=choose) == 0:
            break
    if (folder / "out.jsonl").exists():
        n_lines = len((folder / "out.jsonl").read_text("utf-8").splitlines())
        if n_lines != 30:
            soak.fault(f"a batch of 30 lines has {n_lines} results")


def look(soak: Soak, choose: random.Random) -> None:
    """Look at what is loaded and stored."""
    soak.command(choose.choice(["ps", "list", "show"]), *choose.choice([["--json"], []]))


CLIENTS: tuple[tuple[Callable[[Soak, random.Random], None], int], ...] = (
    (ask, 8),
    (half_a_request, 2),
    (run, 3),
    (batch, 1),
    (look, 2),
)


def client(soak: Soak, number: int) -> None:
    """Do one thing after the other until it is over."""
    choose = random.Random(soak.seed * 1000 + number)
    kinds, weights = zip(*CLIENTS, strict=True)
    while not soak.over.is_set():
        with soak.quiet:
            pass
        try:
            choose.choices(kinds, weights)[0](soak, choose)
        except Exception as error:
            soak.fault(f"a client failed: {error!r}")


def chaos(soak: Soak) -> None:
    """Kill, freeze and stop hosts."""
    choose = random.Random(soak.seed)
    while not soak.over.wait(choose.uniform(*CHAOS)):
        with soak.quiet:
            pass
        hosts = [pid for pid, words in processes(soak.home) if "mixcli.host" in words]
        blow = choose.choice(["kill", "freeze", "freeze", "stop", "terminate", "nothing"])
        soak.counts[f"blow: {blow}"] += 1
        if blow == "stop":
            soak.command("stop", "--all")
        for pid in hosts[:1]:
            if blow == "kill":
                _signal(pid, signal.SIGKILL)
            elif blow == "terminate":
                _signal(pid, signal.SIGTERM)
            elif blow == "freeze":
                _signal(pid, signal.SIGSTOP)
                soak.over.wait(choose.uniform(*FROZEN))
                if choose.random() < 0.2:
                    soak.command("stop", "--all")  # it must end what does not answer
                _signal(pid, signal.SIGCONT)


# what is looked at


def processes(home: Path) -> list[tuple[int, str]]:
    """Return (pid, command line) of every living process that has this home in its environment."""
    mark = f"MIXCLI_HOME={home}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes() + b"\0" and (
                words := (folder / "cmdline").read_bytes()
            ):
                found.append((int(folder.name), words.replace(b"\0", b" ").decode("utf-8", "replace")))
    return found


def memory(pid: int) -> int:
    """Return the resident bytes of a process that no file backs."""
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return sum(int(kib) * 1024 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE))


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def server(soak: Soak) -> Iterator[int]:
    """Run `mixcli serve` meanwhile; yields its pid."""
    log = soak.home / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*MIXCLI, "serve", "-m", "demo", "--port", "0"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=soak.environment,
        )
    deadline = time.monotonic() + COMMAND_SECONDS
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text("utf-8", "replace"))):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"serve did not start: {log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.05)
    soak.port = int(found[1])
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            soak.fault("serve did not end on SIGTERM")
        else:
            if code:
                soak.fault(f"serve ended with {code}")
        words = log.read_text("utf-8", "replace")
        if "Traceback" in words:
            soak.fault(f"serve had a traceback: {words[words.index('Traceback') :][:3000]}")


def settled(soak: Soak, pid: int) -> tuple[int, int]:
    """Hold the clients, wait until the server is at rest, and return its memory and descriptors."""
    with soak.quiet:
        before, deadline = -1, time.monotonic() + SETTLE_SECONDS
        while (now := descriptors(pid)) != before and time.monotonic() < deadline:
            before = now
            time.sleep(5)
        return memory(pid), now


def _borrow(source: str, target: str) -> None:
    """Link a file of the store, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        home = Path(folder)
        (home / "data").mkdir(mode=0o700)
        shutil.copytree(paths.models_dir(), home / "data" / "models", copy_function=_borrow)
        soak = Soak(home, options.minutes, options.seed)
        with server(soak) as pid:
            threads = [threading.Thread(target=client, args=(soak, number)) for number in range(N_CLIENTS)]
            threads.append(threading.Thread(target=chaos, args=(soak,)))
            for thread in threads:
                thread.start()
            time.sleep(options.minutes * 60 * WARM_SHARE)
            warm = settled(soak, pid)
            print(f"after the warm-up: {warm[0] / 2**20:.1f} MiB, {warm[1]} descriptors", flush=True)
            while (left := soak.ends_at - time.monotonic()) > 0:
                time.sleep(min(60.0, left))
                print(
                    f"{left / 60:.0f} minutes to go: {memory(pid) / 2**20:.1f} MiB, {descriptors(pid)} descriptors, {len(processes(home))} processes, {sum(soak.counts.values())} done",
                    flush=True,
                )
            soak.over.set()
            for thread in threads:
                thread.join(COMMAND_SECONDS * 2)
                if thread.is_alive():
                    soak.fault(f"{thread.name} did not come to its end")
            end = settled(soak, pid)
        soak.command("stop", "--all")
        left_over = processes(home)
        sockets = list(home.rglob("*.sock"))
        print(f"at the end: {end[0] / 2**20:.1f} MiB, {end[1]} descriptors; left: {left_over} {sockets}")
        for what, number in sorted(soak.counts.items()):
            print(f"{number:7,} {what}")
        if end[0] > warm[0] * MAX_GROWTH:
            soak.fault(f"the server's memory grew from {warm[0]:,} to {end[0]:,} bytes")
        if end[1] > warm[1] + MAX_DESCRIPTORS:
            soak.fault(f"the server's descriptors grew from {warm[1]} to {end[1]}")
        if left_over or sockets:
            soak.fault(f"left over: {left_over} {sockets}")
        for one, _ in left_over:
            _signal(one, signal.SIGKILL)
    print(f"{len(soak.wrong)} faults")
    sys.exit(bool(soak.wrong))


if __name__ == "__main__":
    main()
