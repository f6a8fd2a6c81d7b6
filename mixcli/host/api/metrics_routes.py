"""GET /metrics: counts and times for Prometheus."""

from fastapi import FastAPI
from fastapi.responses import Response

from mixcli.host.metrics import CONTENT_TYPE
from mixcli.host.protocol.paths import METRICS
from mixcli.host.state import HostState


def add_routes(app: FastAPI, state: HostState) -> None:
    """Add the route to the app."""

    @app.get(METRICS, response_class=Response)
    async def metrics() -> Response:
        """Return counts and times in Prometheus' text form."""
        engine = state.engine
        page = engine.metrics.page(engine.counts(), engine.meter.use())
        return Response(page, headers={"Content-Type": CONTENT_TYPE})
