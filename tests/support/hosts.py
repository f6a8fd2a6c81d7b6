"""A real host with the demo model in it: one for a test, or one for all tests of a file."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from mixcli.client.process import Host, attach, hosts, start, start_lock, stop
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.system.hardware import physical_cores
from profiles.placement import Placement
from tests.support import forked_hosts, verdicts

N_THREADS = min(2, physical_cores())
PLACEMENT = Placement(n_ctx=2048, n_threads=N_THREADS, n_threads_batch=N_THREADS)


def connect(
    name: HostName,
    placement: Placement | LoadPlan,
    keep_alive: float,
    report: Callable[[float, float, str], None] = lambda *_: None,
    *,
    is_forked: bool = True,
) -> Host:
    """Find the host of a name or start it, and wait until its model is loaded; a forked one is killed when this process is."""
    plan = placement if isinstance(placement, LoadPlan) else LoadPlan(placement)
    with start_lock(name), forked_hosts.starting() if is_forked else nullcontext():
        loading = attach(name, keep_alive) or start(name, plan, keep_alive)
    return loading.wait(report)


@contextmanager
def held(name: HostName, placement: Placement | LoadPlan) -> Iterator[Host]:
    """Start a host and hold it; every host of this home is ended afterwards."""
    host = connect(name, placement, 60)
    yield host
    host.release()
    for left in hosts():
        stop(left.pid)
    verdicts.keep(Path(os.environ["MIXCLI_HOME"]))


@contextmanager
def held_for_a_file(
    factory: pytest.TempPathFactory, demo_path: Callable[[str], Path], placement: Placement
) -> Iterator[Host]:
    """Hold a host in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(factory.mktemp("home")))
        with held(_name(demo_path), placement) as host:
            yield host


@pytest.fixture
def name(home: Path, demo_path: Callable[[str], Path]) -> HostName:
    return _name(demo_path)


@pytest.fixture
def host(name: HostName) -> Iterator[Host]:
    with held(name, PLACEMENT) as host:
        yield host


@pytest.fixture(scope="module")
def file_host(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Host]:
    """One host for all tests of a file that leave it as it was: a load takes longer than most of them."""
    with held_for_a_file(tmp_path_factory, demo_path, PLACEMENT) as host:
        yield host


def _name(demo_path: Callable[[str], Path]) -> HostName:
    return HostName(demo_path("Q4_K_M").resolve(), "demo:Q4_K_M", "{}")
