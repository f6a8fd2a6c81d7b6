"""schemathesis reads the OpenAPI document and sends what it allows, and what it does not: no answer is a server's error, none hangs."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.schemas import BaseSchema

from mixcli.host.protocol.paths import CHAT, COMPLETIONS, DOCS, OPENAPI, ROUTES, Route
from tests.support.ports import Port
from tests.support.small_hosts import EMBEDDER, served_small

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]
LONGEST = 30.0  # seconds for an answer, on two busy cores
N_EXAMPLES = 40  # of each route


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with served_small(tmp_path_factory, EMBEDDER) as port:
        yield port


@pytest.fixture(scope="module")
def document(port: Port) -> BaseSchema:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port.number}/openapi.json")
    assert isinstance(schema, BaseSchema)
    return schema


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.is_public], ids=lambda route: route.path
)
def test_no_request_is_an_error_of_the_server(
    document: BaseSchema, route: Route, mode: GenerationMode
) -> None:
    if route.path in (DOCS, OPENAPI) or (mode is GenerationMode.NEGATIVE and route.method == "GET"):
        return  # there is nothing to vary

    statuses: set[int] = set()

    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=document[route.path][route.method].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        if route.path in (CHAT, COMPLETIONS) and isinstance(
            case.body, dict
        ):  # long answers are for other tests
            case.body = {**case.body, "n": 1}
            case.body.setdefault("max_tokens", 2)
        response = case.call(timeout=LONGEST)
        statuses.add(response.status_code)
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    send()
    if (
        route.method == "GET" and "{" not in route.path
    ):  # a drawn body may have fields that exclude each other
        assert 200 in statuses, statuses
