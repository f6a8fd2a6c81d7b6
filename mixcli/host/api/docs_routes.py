"""GET /openapi.json and /docs: the API as a document, and as a page that needs nothing from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from mixcli.host.protocol.paths import DOCS, OPENAPI
from mixcli.host.state import HostState

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>mixcli: API</title>
<meta name="viewport" content="width=device-width"><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
code{{font-size:.95em}}table{{border-collapse:collapse;width:100%}}td{{border-top:1px solid #ddd;padding:.2rem .6rem;vertical-align:top}}
h2{{margin-top:2rem;font-size:1.1rem}}</style>
<h1>API of mixcli</h1><p>The same as a document: <a href="openapi.json">openapi.json</a>.</p>
{routes}</html>"""


def add_routes(app: FastAPI, _state: HostState) -> None:
    """Add the routes to the app."""

    @app.get(OPENAPI, include_in_schema=False)
    async def document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get(DOCS, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.format(routes="\n".join(_sections(app.openapi()))))


def _sections(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(route.get('description', ''))}</p>"
            content = route.get("requestBody", {}).get("content", {})
            fields = content.get("application/json", {}).get("schema", {}).get("properties", {})
            if fields:
                rows = "".join(
                    f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field))}</td></tr>"
                    for name, field in fields.items()
                )
                yield f"<table>{rows}</table>"


def _kind(field: dict[str, Any]) -> str:
    """Return the types of a field in words, and its default."""
    options = field.get("anyOf") or field.get("oneOf") or [field]
    kinds = [
        " | ".join(repr(one) for one in option["enum"]) if "enum" in option else option.get("type", "any")
        for option in options
    ]
    default = field.get("default")
    shown = " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    return shown if default is None else f"{shown}, default {default}"
