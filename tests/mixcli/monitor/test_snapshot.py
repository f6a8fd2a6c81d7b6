"""What is seen of hosts and ports: one at work, one of an older version, those that do not answer, and what `top --json` promises."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.host_watch import UNRESPONSIVE
from mixcli.client.process import Host
from mixcli.host.protocol.health import HostUse
from mixcli.host.protocol.messages import ChatBody
from mixcli.monitor.snapshot import ENDED, Monitor, SeenHost
from mixcli.system import paths
from tests.conftest import Runner
from tests.mixcli.host.test_host import LONG
from tests.mixcli.host.test_life import paused
from tests.support.served import Served
from tests.support.told_host import OLD, told_host
from tests.support.waiting import LIMIT, ends_within, wait_for

DOCS = Path(__file__).resolve().parents[3] / "docs" / "serve.md"


def only(monitor: Monitor, seconds: float = LIMIT) -> SeenHost:
    (one,) = monitor.look(seconds).models
    return one


def seen(mixcli: Runner, *statuses: str) -> dict[str, list[dict[str, Any]]]:
    """Look with `top --json` until all hosts and then all ports have these states: on a busy machine an answer may come too late for one look."""

    def look() -> dict[str, list[dict[str, Any]]] | None:
        found = json.loads(mixcli("top", "--json").stdout)
        states = tuple(one["status"] for one in found["models"] + found["servers"])
        return found if states == statuses else None

    return wait_for(look)


@pytest.mark.model
def test_a_host_at_work_tells_rates_cells_and_memory(file_host: Host) -> None:
    stream = file_host.client.chat(ChatBody(whole={**LONG, "max_tokens": 400}))
    next(delta for delta in stream if delta.text)
    monitor = Monitor()
    host = wait_for(lambda: (one := only(monitor).host).use.decode_tps and one)
    assert (host.pid, host.counts.n_running, host.status) == (file_host.pid, 1, "ready")
    assert host.use.prefill_tps is not None
    assert host.use.n_kv_cells == 2048
    assert 0 < (host.use.n_kv_cells_used or 0) <= 2048
    assert host.use.memory == {}, "no ledger was made for this load"
    assert wait_for(lambda: only(monitor).host.use.step_seconds is not None)
    resident = wait_for(lambda: only(monitor).resident)
    assert resident is not None and resident > 50 << 20, "the model's pages are the process's"
    stream.close()
    list(file_host.client.chat(ChatBody(whole={**LONG, "max_tokens": 1})))
    use = wait_for(lambda: (one := only(monitor).host).status == "ready" and one.use)
    assert 0 < (use.n_prompt_tokens_cached or 0) < (use.n_prompt_tokens or 0)


def test_a_host_of_an_older_version_leaves_out_what_it_does_not_know(mixcli: Runner, home: Path) -> None:
    with told_host(OLD):
        host = wait_for(lambda: (one := only(Monitor()).host).status == "ready" and one)
        printed = wait_for(lambda: "running" in (shown := mixcli("top").stdout) and shown)
        (found,) = seen(mixcli, "ready")["models"]
    assert (host.model, host.counts.n_running, host.use) == ("old:Q4_K_M", 3, HostUse())
    assert "3 running   4 waiting   prefill -   decode -" in printed
    assert (found["n_running"], found["decode_tps"], found["memory"]) == (3, None, None)


def test_numbers_that_are_none_are_not_reported(home: Path) -> None:
    with told_host({**OLD, "decode_tps": "fast", "n_kv_cells": True, "prefill_tps": float("nan"), "memory": {"host": 5, "CUDA0": "x"}}):  # fmt: skip
        wait_for(lambda: only(Monitor()).host.use == HostUse(memory={"host": 5}))


@contextlib.contextmanager
def listening(name: str, *, trickles: bool = False) -> Iterator[None]:
    """Listen as a host and never answer; or send a byte of a header now and then, without an end."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(paths.runtime_dir() / f"{name}.sock"))
        listener.listen(8)

        def trickle() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):  # it has waited long enough, or the test is over
                    peer, _ = listener.accept()
                    with peer:
                        while not over.wait(0.05):
                            peer.sendall(b"H")

        if trickles:
            threading.Thread(target=trickle, daemon=True).start()
        try:
            yield
        finally:
            over.set()


def test_hosts_that_do_not_answer_hold_up_no_look(home: Path) -> None:
    """Neither the one that is silent nor the one whose answer never ends; what answers is seen in the first look."""
    with listening("aaaaaaaaaaaaaaaa"), listening("bbbbbbbbbbbbbbbb", trickles=True), told_host(OLD):
        monitor = Monitor()
        wait_for(lambda: any(one.host.model == "old:Q4_K_M" for one in monitor.look(0.1).models))
        wait_for(lambda: any(one.host.status == UNRESPONSIVE for one in monitor.look(0.1).models))
        with ends_within():
            for _ in range(50):
                assert any(one.host.model == "old:Q4_K_M" for one in monitor.look(0.1).models)


@pytest.mark.model
def test_a_stopped_host_has_no_response_and_is_back_afterwards(file_host: Host) -> None:
    monitor = Monitor()
    assert only(monitor).host.status == "ready"
    with paused(file_host.pid):
        host = wait_for(lambda: (one := only(monitor, 0.05).host).status == UNRESPONSIVE and one)
        assert (host.pid, host.model, host.use) == (file_host.pid, "demo:Q4_K_M", HostUse())
        assert [one.host.status for one in Monitor().look().models] == [UNRESPONSIVE], "one look is enough"
    wait_for(lambda: only(monitor).host.status == "ready")


def test_a_process_that_has_ended_is_still_shown_for_a_while(home: Path) -> None:
    gone = _a_dead_process()
    monitor = Monitor()
    with told_host({**OLD, "pid": gone}):
        wait_for(lambda: only(monitor).host.status == "ready")
    assert (only(monitor).host.status, only(monitor).host.model) == (ENDED, "old:Q4_K_M")
    assert Monitor().look().models == ()


def _a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.slow
@pytest.mark.usefixtures("locked")
def test_a_port_is_found_without_its_key_and_seen_while_its_host_is_stopped(
    mixcli: Runner, served_tiny: Served
) -> None:
    found = seen(mixcli, "ready", "ready")
    (host,), (port,) = found["models"], found["servers"]
    assert port["url"] == f"http://127.0.0.1:{served_tiny.port}/v1"
    assert (port["pid"], port["status"]) == (served_tiny.process.pid, "ready")
    assert [(one["status"], one["n_answering"]) for one in port["models"]] == [("loaded", 0)]
    assert set(host) == documented("models")
    assert set(port) == documented("servers")
    with paused(host["pid"]):
        found = seen(mixcli, UNRESPONSIVE, "ready")
        assert set(found["models"][0]) == documented("models")
        with paused(served_tiny.process.pid):
            printed = mixcli("top").stdout
            assert printed.count("no response") == 2, printed
    served_tiny.end()
    assert json.loads(mixcli("top", "--json").stdout) == {"models": [], "servers": []}


def documented(name: str) -> set[str]:
    """Return the fields that docs/serve.md lists for an object of the snapshot."""
    section = DOCS.read_text("utf-8").partition(f"each object in `{name}`")[2]
    table = section.partition("|---|---|\n")[2].partition("\n\n")[0]
    return {field for row in table.splitlines() for field in re.findall(r"`(\w+)`", row.split("|")[1])}
