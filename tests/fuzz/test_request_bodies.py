"""Hostile request bodies against the host's own app and engine, in this process: 200 or 400 with the field's name, never 500, and the next request works."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import strategies as st

from mixcli.host.api.app import create_app
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.protocol.host_spec import HostName, HostSpec, LoadPlan
from mixcli.host.protocol.paths import READY
from mixcli.host.state import HostState
from profiles.placement import Placement
from quantize import Options, convert
from tests.fuzz.budget import RIDDLES, for_a_while
from tests.fuzz.values import TEXTS, edited, edits, json_values
from tests.support.checkpoints import write_checkpoint

pytestmark = pytest.mark.slow

PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=32, n_threads=1, n_threads_batch=1)
ANSWER_SECONDS = 60.0  # of one request; a context of 256 tokens takes well under one
PLAIN = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}
REFUSED = {400, 404, 405, 409, 413, 415, 422, 503}

FIELDS = [
    *sorted(ChatRequest.model_fields),
    "tools",
    "tool_choice",
    "functions",
    "user",
    "metadata",
    "guided_json",
    "x",
]
SCHEMA_KEYS = [
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "format",
    "enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "definitions", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "title",
    "description", "default", "examples", "if", "then", "uniqueItems", "contains", "propertyNames", "patternProperties", "minProperties", "x-order",
]  # fmt: skip
TYPES = ["object", "array", "string", "integer", "number", "boolean", "null"]

schemas = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(TYPES)})
    | st.dictionaries(st.sampled_from(SCHEMA_KEYS), json_values(), max_size=3),
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(st.sampled_from(["a", "b", "é", ""]), inner, max_size=2),
                "required": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2),
            },
        )
        | st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=2)})
    ),
    max_leaves=5,
)
choices = (
    st.lists(st.sampled_from(TEXTS) | st.text(max_size=5), max_size=5)
    | st.integers(1, 300).map(lambda n: [f"label {i}" for i in range(n)])
    | st.integers(1, 400).map(lambda n: ["word " * n, "no"])
)
regexes = st.sampled_from(
    [
        "a+",
        "(",
        "[",
        "a{1,100000}",
        "(a|b)*c",
        "\\p{L}+",
        "(?i)x",
        "",
        "^$",
        ".*",
        "(a*)*b",
        "\\",
        "é+",
        "[^\\x00]",
    ]
) | st.text(max_size=8)
grammars = st.sampled_from(
    [
        'root ::= "a"',
        "root ::= root",
        "x",
        'root ::= "a" root | "b"',
        "",
        "start: /a+/",
        "root ::= [a-z]+",
        'root ::= ("a"',
    ]
)
structured = (
    st.fixed_dictionaries({"json": schemas})
    | st.fixed_dictionaries({"regex": regexes})
    | st.fixed_dictionaries({"grammar": grammars})
    | st.fixed_dictionaries({"choice": choices})
    | json_values()
)
contents = (
    st.sampled_from(TEXTS)
    | st.text(max_size=20)
    | st.integers(1, 4000).map(lambda n: "word " * n)
    | json_values()
    | st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": st.text(max_size=3)}),
        max_size=2,
    )
)
messages = (
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "user", "assistant", "tool", "developer", ""]),
                "content": contents,
            },
            optional={"token_ids": json_values()},
        ),
        max_size=4,
    )
    | json_values()
)
fields = st.dictionaries(st.sampled_from(FIELDS), json_values(), max_size=3)
bodies = st.builds(
    lambda base, some, extra: {**base, **some, **extra},
    st.just(PLAIN) | st.just({**PLAIN, "stream": True}) | st.just({**PLAIN, "speculate": True, "logprobs": True, "top_logprobs": 3}),
    fields,
    st.just({}) | st.fixed_dictionaries({"structured_outputs": structured}) | st.fixed_dictionaries({"messages": messages}) | st.fixed_dictionaries({"response_format": st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": schemas})})}),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    path: str
    body: bytes
    headers: dict[str, str]


def _case(path: str, body: object, changes: list[tuple[float, int]], key: str | None) -> Case:
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    return Case(path, edited(json.dumps(body).encode(), changes), headers)


cases = st.builds(
    _case,
    st.sampled_from(["/v1/chat/completions"] * 8 + ["/tokenize", "/mixcli/experts"]),
    bodies | json_values(),
    st.just([]) | st.just([]) | edits(),
    st.none() | st.sampled_from(["a", "b"]),
)


class App:
    """The host's app over a real engine, in an event loop of its own; the engine's thread is the host's."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.state = self._do(self._start(HostSpec(HostName(path, "tiny", "{}"), LoadPlan(PLACEMENT))))

    def send(self, case: Case) -> httpx2.Response:
        return self._do(self._send(case))

    def close(self) -> None:
        self.state.engine.close(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, spec: HostSpec) -> HostState:
        state = HostState(spec)
        transport = httpx2.ASGITransport(create_app(state), raise_app_exceptions=False)
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://localhost")
        state.engine.start()
        while state.engine.status != READY:
            assert state.engine.error is None, state.engine.error
            await asyncio.sleep(0.01)
        return state

    async def _send(self, case: Case) -> httpx2.Response:
        return await self._client.post(case.path, content=case.body, headers=case.headers)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)


@pytest.fixture
def app(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("MIXCLI_KV_DISK", "0")
    folder = write_checkpoint(tmp_path / "tiny", n_layer=1, n_embd=64, n_ff=64, n_expert=2)
    convert(folder, tmp_path / "tiny.gguf", Options(output_type="Q8_0"))
    app = App(tmp_path / "tiny.gguf")
    yield app
    app.close()


def test_request_bodies(app: App) -> None:
    plain = _case("/v1/chat/completions", PLAIN, [], None)
    n_answered = 0

    def check(case: Case) -> None:
        nonlocal n_answered
        response = app.send(case)
        assert response.status_code in {200, *REFUSED}, (response.status_code, response.text)
        if response.status_code == 200:
            n_answered += 1
        else:
            detail = response.json()["error"]
            assert detail["message"], detail
            assert not RIDDLES.search(detail["message"]), detail
            if response.status_code == 400:
                assert detail["param"], detail
        assert app.send(plain).status_code == 200
        assert app.state.engine.error is None

    check(plain)
    n_cases = for_a_while(cases, check)
    assert n_answered > n_cases / 10, "hardly any request was answered"
