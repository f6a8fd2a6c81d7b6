"""Two workers on loopback as stand-in GPUs: what the ledger says is what every device gives, and the text is the CPU's."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from mixcli.client import worker
from mixcli.errors import MixcliError
from mixcli.planning.report import Subject
from mixcli.planning.verify_plan import measured
from mixcli.store.headers import header_of, shape_of
from mixcli.system.hardware import this_machine
from profiles.ledger import expectation
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import PlanRequest, plan
from tests.support.llama_workers import free_port, listens, start_worker, taken
from tests.support.side_by_side import FAR, NEAR, apart
from tests.support.slow_relay import slow_relay
from tests.support.synthetic import MID, write_model
from tests.support.traces import CAPITAL
from tests.support.waiting import LIMIT, wait_for

Runner = Callable[..., Any]
MIB = 1 << 20
DELAY = 0.05  # seconds on each way through a relay

# MiB for each stand-in GPU, from almost nothing to everything; contexts and cache types, of which each meets each of the others at some budget
BUDGETS = (40, 110, 260, 900)
CACHES = ((1024, "f16"), (4096, "q8_0"))
MORE = ((110, 4096, "f16"), (260, 1024, "q8_0"))


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[str, str]]:
    ports = free_port(), free_port()
    processes = [start_worker(port) for port in ports]
    yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    for process in processes:
        process.kill()
        process.wait()


def budgeted(machine: Machine, mib: int) -> Machine:
    return replace(
        machine, gpus=tuple(replace(gpu, bytes_free=mib * MIB, bandwidth=400.0) for gpu in machine.gpus)
    )


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q8_0"])
def test_every_device_gives_what_the_ledger_says(
    file_type: str, demo_path: Callable[[str], Path], workers: tuple[str, str], home: Path
) -> None:
    path = demo_path(file_type)
    shape = shape_of(header_of([path]))
    machine = this_machine(workers)
    assert [gpu.kind for gpu in machine.gpus] == ["rpc", "rpc"]
    on_gpus, names, cases, expected = set(), [], [], []
    caches = CACHES if file_type == "Q4_K_M" else CACHES[:1]
    more = MORE if file_type == "Q4_K_M" else ()
    for mib, n_ctx, kv in (*((mib, *cache) for mib, cache in product(BUDGETS, caches)), *more):
        found = plan(shape, budgeted(machine, mib), PlanRequest(n_ctx=n_ctx, kv=kv, n_ubatch=512))
        names.append((mib, n_ctx, kv))
        cases.append((path, replace(found.placement, load_mode="none")))
        expected.append(expectation(found.ledger))
        on_gpus.add(sum(account.experts for account in found.ledger[:-1]))
        assert all(account.left >= 0 for account in found.ledger)
    for name, rows in zip(names, taken(workers, cases, expected), strict=True):
        assert {device for device, *_ in rows} == {"host", *(gpu.name for gpu in machine.gpus)}
        for device, planned, real in rows:
            assert abs(real - planned) <= 0.02 * planned or planned < MIB, (name, device, planned, real)
    assert len(on_gpus) >= 3  # none, some and all of the experts


# MiB for each stand-in GPU, context, cache type, file type: the mid-size model, 430 MB at Q4_K_M
MID_CASES = (
    (70, 1024, "f16", "Q4_K_M"), (90, 8192, "q8_0", "Q4_K_M"), (80, 2048, "f16", "Q4_K_M"), (110, 8192, "q8_0", "Q4_K_M"),
    (150, 1024, "q8_0", "Q4_K_M"), (150, 4096, "f16", "Q4_K_M"), (150, 16384, "q8_0", "Q4_K_M"), (600, 4096, "f16", "Q4_K_M"),
    (80, 1024, "f16", "Q2_K"), (110, 8192, "q8_0", "Q2_K"), (120, 4096, "f16", "Q6_K"), (200, 2048, "q8_0", "Q6_K"),
    (200, 4096, "f16", "Q3_K_M"), (900, 8192, "f16", "Q6_K"),
)  # fmt: skip
PROMPT = [1, *range(400, 463)]


@pytest.mark.slow
@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q2_K", "Q3_K_M", "Q6_K"])
def test_a_mid_size_mixtral_on_two_workers(
    file_type: str, tmp_path: Path, workers: tuple[str, str], home: Path
) -> None:
    """Bytes within 2 % on every device, and the logits of the processor alone, over budgets, contexts and cache types."""
    path = write_model(tmp_path / "mid.gguf", MID, file_type)
    shape = shape_of(header_of([path]))
    machine = this_machine(workers)
    subject = Subject("mid", shape, path)
    expected: dict[str, Sequence[float]] = {}
    for mib, n_ctx, kv in [case[:3] for case in MID_CASES if case[3] == file_type]:
        request = PlanRequest(n_ctx=n_ctx, kv=kv, n_ubatch=256)
        alone = plan(shape, replace(machine, gpus=()), request)
        found = plan(shape, budgeted(machine, mib), request)
        assert any(account.attention for account in found.ledger[:-1]), (mib, n_ctx, kv)
        placement = replace(found.placement, workers=workers, load_mode="none")
        answer = measured(subject, placement, expectation(found.ledger), logits=PROMPT)
        for one in answer.comparisons:
            assert one.off <= 0.02 or one.planned < MIB, (mib, n_ctx, kv, one)
        if kv not in expected:  # the length of the context changes no logits
            expected[kv] = measured(subject, alone.placement, {}, logits=PROMPT).logits
        assert apart(answer.logits, expected[kv]) <= NEAR, (mib, n_ctx, kv)


@pytest.mark.slow
@pytest.mark.model
def test_the_demos_logits_are_the_cpus(
    demo_path: Callable[[str], Path], workers: tuple[str, str], home: Path
) -> None:
    path = demo_path("Q4_K_M")
    subject = Subject("demo", shape_of(header_of([path])), path)
    machine = this_machine(workers)
    expected: dict[str, Sequence[float]] = {}
    for mib, kv in ((40, "f16"), (110, "q8_0"), (260, "f16"), (900, "f16")):
        request = PlanRequest(n_ctx=1024, kv=kv, n_ubatch=256)
        alone = plan(subject.shape, replace(machine, gpus=()), request)
        found = plan(subject.shape, budgeted(machine, mib), request)
        together = measured(subject, replace(found.placement, workers=workers), {}, logits=PROMPT).logits
        if kv not in expected:
            expected[kv] = measured(subject, alone.placement, {}, logits=PROMPT).logits
        assert apart(together, expected[kv]) <= FAR, (mib, kv)


@pytest.mark.slow
@pytest.mark.model
def test_the_text_is_the_cpus(mixcli: Runner, with_demo: Path, workers: tuple[str, str]) -> None:
    ask = (
        "run",
        "-m",
        "demo",
        "What is the capital of France?",
        "--max-tokens",
        "12",
        "--ctx",
        "1024",
        "--keep-alive",
        "0",
    )
    alone = mixcli(*ask)
    assert alone.returncode == 0, alone.stderr
    names = [word for endpoint in workers for word in ("--worker", endpoint)]
    # main memory alone is too small, so the workers must be used
    budgets = (*names, "--vram", "260MiB", "--ram", "600MiB")
    planned = json.loads(mixcli("plan", "demo", "--ctx", "1024", *budgets, "--json").stdout)
    assert all(account["attention"] and account["experts"] for account in planned["ledger"][:2])
    together = mixcli(*ask, *budgets)
    assert together.returncode == 0, together.stderr
    assert CAPITAL.matches(alone.stdout)
    assert CAPITAL.matches(together.stdout)
    assert "were planned" not in together.stderr


@pytest.mark.slow
@pytest.mark.model
def test_plan_verify_shows_both_numbers(mixcli: Runner, with_demo: Path, workers: tuple[str, str]) -> None:
    done = mixcli(
        "plan",
        "demo",
        "--ctx",
        "1024",
        "--worker",
        workers[0],
        "--vram",
        "400MiB",
        "--ram",
        "600MiB",
        "--verify",
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.startswith(("RPC0[", "host\t"))]
    off = [float(row[4].replace(",", "")) for row in rows if len(row) == 5]
    assert len(off) >= 5
    assert all(abs(mib) <= 1 for mib in off), done.stdout
    assert any(float(row[2].replace(",", "")) > 100 for row in rows if len(row) == 5 and row[0] != "host")


def test_a_worker_that_is_not_there(mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral", "--worker", f"127.0.0.1:{free_port()}")
    assert done.returncode == 6
    assert "no worker at" in done.stderr
    assert mixcli("plan", "mixtral", "--worker", "nonsense").returncode != 0


def test_the_command_lends_and_is_listed_with_its_client(mixcli: Runner, home: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", "worker", "--listen", f"127.0.0.1:{port}", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert f"worker listening on 127.0.0.1:{port}" in process.stderr.readline()
    wait_for(lambda: listens(port))
    listed = {"worker": f"127.0.0.1:{port}", "pid": process.pid, "status": "free", "client": None}
    wait_for(lambda: json.loads(mixcli("ps", "--json").stdout) == [listed])
    if sys.platform == "linux":
        with socket.create_connection(("127.0.0.1", port)):
            said = f"worker at 127.0.0.1:{port}\t{process.pid}\t-\t-\tin use by process {os.getpid()} ("
            wait_for(lambda: said in mixcli("ps").stdout)
    process.send_signal(2)
    assert process.wait(LIMIT) == 130
    process.stderr.close()
    wait_for(lambda: not listens(port))  # nobody is left who lends, whenever the interrupt came
    assert json.loads(mixcli("ps", "--json").stdout) == []


def test_an_address_that_others_reach_is_warned_of(home: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mixcli",
        "worker",
        "--listen",
        f"0.0.0.0:{free_port()}",
        "--threads",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        process.kill()
    assert "no password, no encryption" in said


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1:50052", "nowhere.invalid:50052"],  # of RFC 5737 and RFC 6761: no machine has them
)
def test_an_address_of_another_machine_is_refused_before_it_is_said_to_listen(
    mixcli: Runner, address: str
) -> None:
    done = mixcli("worker", "--listen", address)
    assert done.returncode == 1
    assert f"cannot listen on {address}: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_killed_command_leaves_no_worker(home: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", "worker", "--listen", f"127.0.0.1:{port}", "--threads", "1"],
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: listens(port))
    process.kill()
    process.wait()
    wait_for(lambda: not listens(port))


def test_a_taken_address_is_said(mixcli: Runner, workers: tuple[str, str]) -> None:
    done = mixcli("worker", "--listen", workers[0])
    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_a_placement_takes_its_workers_along() -> None:
    placement = Placement(workers=("127.0.0.1:1", "127.0.0.1:2"))
    assert Placement.from_json(placement.to_json()) == placement
    assert json.loads(placement.to_json())["workers"] == ["127.0.0.1:1", "127.0.0.1:2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "did not respond"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad\r\n", "is not a mixcli worker"),
    ],
)
def test_what_accepts_and_is_no_worker_is_told_in_time(
    mixcli: Runner, said: bytes | None, words: str
) -> None:
    """None: it accepts and says nothing, as a worker that is stopped does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):  # it may have left
                connection.recv(64)
                if said is None:
                    time.sleep(40)
                else:
                    connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        done = mixcli("plan", "mixtral", "--worker", f"127.0.0.1:{listener.getsockname()[1]}", timeout=60)
    assert done.returncode == 6, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.model
def test_a_plan_shows_the_network_and_its_estimate_includes_it(
    mixcli: Runner, with_demo: Path, workers: tuple[str, str]
) -> None:
    def planned(worker: str) -> dict[str, Any]:
        budgets = ("--ctx", "1024", "--worker", worker, "--vram", "400MiB", "--ram", "600MiB")
        found: dict[str, Any] = json.loads(mixcli("plan", "demo", *budgets, "--json").stdout)["estimate"]
        return found

    near = planned(workers[0])
    with slow_relay(int(workers[0].rpartition(":")[2]), DELAY) as port:
        far = planned(f"127.0.0.1:{port}")
        budgets = ("--ctx", "1024", "--worker", f"127.0.0.1:{port}", "--vram", "400MiB", "--ram", "600MiB")
        shown = mixcli("plan", "demo", *budgets).stdout
    (path,) = far["network"]["workers"]
    assert path["device"] == f"RPC0[127.0.0.1:{port}]"
    assert path["round_trip"] >= 2 * DELAY
    assert path["trips"] >= 1
    assert far["network"]["decode_seconds"] >= 2 * DELAY * path["trips"]
    assert 1 / far["decode"] >= far["network"]["decode_seconds"]
    assert 1 / far["decode"] - 1 / near["decode"] > DELAY
    assert re.search(r"^network   \d\S* ms a token of \d\S* \(\d+ %\), \d+ % of prefill; ", shown, re.M)
    assert re.search(rf"^ +RPC0\[127.0.0.1:{port}\]: \d+ round trips? a token of ", shown, re.M)


def test_of_what_a_worker_complains_of_only_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run for months, and write a line for each client that speaks another protocol, in whatever bytes that sent."""
    code = "import sys\nfor _ in range(300_000): sys.stderr.buffer.write(bytes(range(128, 228)) + b'\\n')\nsys.exit('the end')"
    monkeypatch.setattr(worker.python_child, "command", lambda *_: [sys.executable, "-c", code])
    tracemalloc.start()
    try:
        with pytest.raises(MixcliError, match="the worker at here:1 crashed: the end"):
            worker.serve_memory("here:1", 1)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
