"""Shared fixtures: a home of its own for every test, the real command line as a process, the demo model made once."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from mixcli.system import paths
from mixcli.system.console import console
from mixcli.system.hardware import gpu_backends
from tests.support import forked, quick, schedule, verdicts

ROOT = Path(__file__).resolve().parent.parent
# the same examples in every run, whatever time they take: `--hypothesis-profile=default` draws others
settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
Runner = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    """Let signals reach what the tests start, also where a shell in the background or nohup has them ignored for all its children."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ["MIXCLI_MEASURE"] = "off"  # every test has a home of its own, and would measure the processor
    _keep_bytecode()
    _take_a_share_of_the_cores()
    schedule.start_elsewhere(config)


def _keep_bytecode() -> None:
    """Write compiled modules beside their sources, also where the environment forbids it: hundreds of processes import the same ones."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _take_a_share_of_the_cores() -> None:
    """Keep one of several pytest workers, and the models that it loads, to a share of the cores: a model's threads wait for each other by spinning.

    Where workers share a core, a model has one thread. Half of a worker's time is waiting for processes, disks and clocks; then the other one
    has the core.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, schedule.share_of(sorted(os.sched_getaffinity(0))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files where several workers share the tests: a long one at the end would be waited for."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        schedule.longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hold the tests of `make test-quick` to what it promises."""
    if quick.is_quick_run(item.config):
        with quick.held_to_a_second(item.nodeid):
            return (yield)
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> schedule.LongestFirst:
    return schedule.LongestFirst(config, log)


def _environment(home: Path) -> dict[str, str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("MIXCLI_", "HF_", "XDG_"))}
    return {
        **keep,
        **_foreign(home),
        "MIXCLI_HOME": str(home),
        "MIXCLI_MEASURE": "off",
        **(
            {} if "cuda" in gpu_backends() else {"CUDA_VISIBLE_DEVICES": ""}
        ),  # no note of a card that is not used
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "HF_HUB_OFFLINE": "1",
    }


def _foreign(home: Path) -> dict[str, str]:
    """Where other programs keep their models: nowhere that this machine's own are."""
    return {
        "HF_HOME": str(home / "huggingface"),
        "OLLAMA_MODELS": str(home / "ollama"),
        "LMSTUDIO_MODELS": str(home / "lmstudio"),
    }


@pytest.fixture(autouse=True)
def heard() -> None:
    """Undo a --quiet that another test gave a command in this process."""
    console.configure(quiet=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private MIXCLI_HOME, for this process and for every `mixcli` that the test starts."""
    place = tmp_path / "home"
    for name, value in {"MIXCLI_HOME": str(place), **_foreign(place)}.items():
        monkeypatch.setenv(name, value)
    yield place
    if place.is_dir() and not (place / "data").is_file():
        # it may lie under the temporary folder, where sockets' paths are short; a host that ends takes its own files away at the same time
        shutil.rmtree(paths.runtime_dir(), ignore_errors=True)


def mixcli_process(
    home: Path, args: Sequence[str], stdin: str | bytes | None = None, timeout: float = 120, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own; stdin None is an empty pipe."""
    raw = stdin.encode() if isinstance(stdin, str) else stdin or b""
    whole = {**_environment(home), **env}
    if forked.can_fork(env):
        ended = forked.run(args, whole, raw, timeout)
        if ended == forked.KILLED:
            raise subprocess.TimeoutExpired(list(args), timeout)
        code, out, err = ended.code, ended.out, ended.err
    else:
        done = subprocess.run(
            [sys.executable, "-m", "mixcli", *args],
            input=raw,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=whole,
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    return subprocess.CompletedProcess(
        list(args), code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
    )


@pytest.fixture
def mixcli(home: Path) -> Iterator[Runner]:
    """Run `mixcli ARGS` in the test's own home; models that it loaded are unloaded afterwards."""

    def run(
        *args: str, stdin: str | bytes | None = None, timeout: float = 120, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        return mixcli_process(home, args, stdin, timeout, **env)

    yield run
    if home.exists() and any(paths.runtime_dir().glob("*.sock")):
        mixcli_process(home, ["stop", "--all", "-q"])
    verdicts.keep(home)


@pytest.fixture(scope="session")
def demo_home() -> Path:
    """A store with the demo models in build/, made again when the code that makes them has changed."""
    sources = sorted(
        [
            *(ROOT / "quantize").rglob("*.py"),
            ROOT / "mixcli/pull/local_build.py",
            ROOT / "mixcli/store/store.py",
        ]
    )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    place = ROOT / "build" / "test-demo"
    for old in place.glob("*"):
        if old.name != digest:
            shutil.rmtree(old, ignore_errors=True)
    return place / digest


@pytest.fixture(scope="session")
def demo_path(demo_home: Path) -> Callable[[str], Path]:
    """Return the GGUF of the demo in a file type (Q4_K_M, Q8_0, BF16), made by `mixcli pull` itself when it is not there."""

    def path(file_type: str = "Q4_K_M") -> Path:
        gguf = demo_home / "data" / "models" / f"demo--{file_type}" / f"demo-{file_type}.gguf"
        if not gguf.exists():
            done = mixcli_process(demo_home, ["pull", f"demo:{file_type}"], timeout=600)
            assert done.returncode == 0, done.stderr
        return gguf

    return path


@pytest.fixture
def with_demo(home: Path, demo_path: Callable[[str], Path]) -> Path:
    """The test's own home with the demo in its store (linked, not copied)."""
    return link_demo(demo_path("Q4_K_M"), home)


@pytest.fixture(scope="module")
def warm_home(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Path]:
    """A home for the tests of a file that need a loaded model and leave it as it was: a load takes longer than most of them."""
    place = link_demo(demo_path("Q4_K_M"), tmp_path_factory.mktemp("warm") / "home")
    yield place
    mixcli_process(place, ["stop", "--all", "-q"])
    verdicts.keep(place)


@pytest.fixture
def warm(warm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run `mixcli ARGS` in the home that the file's tests share; the models that it loaded stay until the file is done."""
    for name, value in {"MIXCLI_HOME": str(warm_home), **_foreign(warm_home)}.items():
        monkeypatch.setenv(name, value)

    def run(
        *args: str, stdin: str | bytes | None = None, timeout: float = 120, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        return mixcli_process(warm_home, args, stdin, timeout, **env)

    return run


def link_demo(gguf: Path, home: Path) -> Path:
    """Put a demo into the store of a home, by hard links."""
    target = home / "data" / "models" / gguf.parent.name
    target.mkdir(parents=True, mode=0o700)
    for file in gguf.parent.iterdir():
        os.link(file, target / file.name)
    verdicts.lend(home)
    return home
