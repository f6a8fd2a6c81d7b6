"""Run the tests as CI does: a few that failed beside others run once more, alone, and are printed as flaky if they then pass.

Nothing else is run again: not after a crash of a worker, an error of collection, an interrupt, or a run without a test.
"""

import os
import sys
from collections.abc import Collection, Sequence

import pytest

MAX_AGAIN = 5  # tests; where more fail, a change has broken something
FROM_OUTSIDE = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")  # they could leave tests out, or repeat them unseen


class Outcomes:
    """What became of the tests of one run: a plugin of the process to which all workers report."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: dict[str, None] = {}  # in the order of their failures
        self.broken: list[str] = []  # what went wrong and is not a test

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = None
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(f"{report.nodeid} cannot be collected")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        """Note the end of a worker that was not asked to end; xdist blames the test that ran, and starts another worker."""
        if error:
            self.broken.append(f"a worker crashed ({error})")

    def pytest_internalerror(self) -> None:
        self.broken.append("pytest itself failed")

    def deserve_another_run(self, code: int) -> bool:
        """Return whether a run ended with this exit code because few tests failed, and for no other reason."""
        return code == pytest.ExitCode.TESTS_FAILED and not self.broken and 0 < len(self.failed) <= MAX_AGAIN

    def are_good(self, code: int, tests: Collection[str] = ()) -> bool:
        """Return whether a run ended well and at least one test passed in it, and each of `tests`."""
        is_good = code == pytest.ExitCode.OK and not self.broken and not self.failed
        return is_good and bool(self.passed) and self.passed.issuperset(tests)


def main(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments; return 0 if every test passed, beside the others or then alone."""
    for name in FROM_OUTSIDE:
        os.environ.pop(name, None)
    first, code = _run(arguments)
    if first.are_good(code):
        return 0
    if not first.deserve_another_run(code):
        why = first.broken or [f"{len(first.failed)} failed tests, {len(first.passed)} passed"]
        _write(f"no test is run again: {'; '.join(why)}")
        return code or 1
    tests = list(first.failed)
    _write("failed beside other tests, now run once more, alone:", tests)
    second, code = _run(["-n", "1", *tests])
    if not second.are_good(code, tests):
        _write(
            "did not pass alone either:",
            [test for test in tests if test not in second.passed - {*second.failed}],
        )
        return code or 1
    _write(
        f"FLAKY: {len(tests)} of {len(first.passed | {*tests})} tests failed beside others and passed alone:",
        tests,
    )
    return 0


def _run(arguments: Sequence[str]) -> tuple[Outcomes, int]:
    outcomes = Outcomes()
    return outcomes, int(pytest.main(list(arguments), plugins=[outcomes]))


def _write(line: str, tests: Sequence[str] = ()) -> None:
    sys.stdout.writelines(f"{one}\n" for one in (line, *(f"  {test}" for test in tests)))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
