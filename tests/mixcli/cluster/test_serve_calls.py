"""Every wait for Ray Serve has an end, and says what it waited for."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mixcli.cluster.application import Application
from mixcli.cluster.serve_calls import within
from mixcli.errors import MixcliError, NotReachable
from tests.support.waiting import ends_within


def test_a_call_that_does_not_return_is_given_up_and_named() -> None:
    never = threading.Event()
    with (
        ends_within(),
        pytest.raises(NotReachable, match=r"^the state of Ray Serve took longer than 0 seconds: "),
    ):
        within(0.01, "the state of Ray Serve", never.wait)
    never.set()


def test_results_and_errors_are_those_of_the_call() -> None:
    def fail() -> None:
        raise TimeoutError("of the call")

    assert within(60.0, "a sum", lambda: 1 + 1) == 2
    with pytest.raises(TimeoutError, match="of the call"):
        within(60.0, "a failure", fail)


def test_an_application_that_is_removed_while_it_loads_is_not_waited_for() -> None:
    """As by `serve shutdown`, after which Ray Serve reports no applications."""
    statuses: list[dict[str, Any]] = [
        {"mixcli-m": SimpleNamespace(deployments={}, message="", status="DEPLOYING")},
        {},
    ]
    application = object.__new__(Application)
    application.name = "mixcli-m"
    application._ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=OSError))
    application._serve = SimpleNamespace(status=lambda: SimpleNamespace(applications=statuses.pop(0)))
    with (
        ends_within(),
        pytest.raises(MixcliError, match=r"^mixcli-m was removed from the cluster while its model loaded"),
    ):
        application.wait()
