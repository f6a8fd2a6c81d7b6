"""What CI runs again and what it never forgives, with small suites that really fail, crash or cannot be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.once_more import MAX_AGAIN, Outcomes

ROOT = Path(__file__).resolve().parent.parent
# each test finds out from a file whether it has been run before
BEGIN = """
import os, pathlib, pytest
def is_second(name):
    first = not (mark := pathlib.Path(name)).exists()
    mark.touch()
    return not first
def test_good(): pass
"""
FLAKY = "def test_flaky(): assert is_second('flaky')\n"
BAD = "def test_bad(): assert False\n"
CRASH = "def test_crash():\n    if not is_second('crash'): os._exit(11)\n"
GONE = "def test_gone():\n    if is_second('gone'): pytest.skip('no longer here')\n    assert False\n"


def ended(folder: Path, *files: str, **env: str) -> "subprocess.CompletedProcess[str]":
    for number, code in enumerate(files):
        (folder / f"test_{number}.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q -p xdist.plugin -p no:cacheprovider\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "tests.once_more", "-n", "1"],
        cwd=folder,
        env={**clean, "PYTHONPATH": os.fspath(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_what_passes_alone_is_printed_as_flaky(tmp_path: Path) -> None:
    done = ended(tmp_path, BEGIN + FLAKY, PYTEST_ADDOPTS="--collect-only")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        "FLAKY: 1 of 2 tests failed beside others and passed alone:\n  test_0.py::test_flaky\n"
    )
    assert "is_second('flaky')" in done.stdout, "the first failure is shown too"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "last"),
    [
        (
            [BEGIN + BAD + FLAKY + GONE],
            "did not pass alone either:\n  test_0.py::test_bad\n  test_0.py::test_gone",
        ),
        ([BEGIN + FLAKY + CRASH], "no test is run again: a worker crashed (Not properly terminated)"),
        (
            [BEGIN + FLAKY, "import nothing_of_this_name"],
            "no test is run again: test_1.py cannot be collected",
        ),
    ],
    ids=["fails again", "crash", "collection"],
)
def test_what_is_not_forgiven(tmp_path: Path, files: list[str], last: str) -> None:
    done = ended(tmp_path, *files)
    assert done.returncode > 0
    assert done.stdout.endswith(f"{last}\n"), done.stdout


def test_many_failures_and_other_ends_are_final() -> None:
    outcomes = Outcomes()
    for number in range(MAX_AGAIN):
        outcomes.failed[f"test_{number}"] = None
    assert outcomes.deserve_another_run(pytest.ExitCode.TESTS_FAILED)
    for code in set(pytest.ExitCode) - {pytest.ExitCode.TESTS_FAILED}:
        assert not outcomes.deserve_another_run(code)
        assert not outcomes.are_good(code)
    assert not Outcomes().are_good(pytest.ExitCode.OK), "nothing ran"
    outcomes.failed["one more"] = None
    assert not outcomes.deserve_another_run(pytest.ExitCode.TESTS_FAILED)
