"""The host's HTTP app in this process, over a real engine: with a tiny model of random weights, or another."""

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from mixcli.host.api.app import create_app
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.host.protocol.paths import CHAT, READY
from mixcli.host.state import HostState
from profiles.placement import Placement
from quantize import Options, convert
from tests.support import verdicts
from tests.support.checkpoints import write_checkpoint, write_native

PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=32, n_threads=1, n_threads_batch=1)
ANSWER_SECONDS = 60.0  # of one request; a context of 256 tokens takes well under one
JSON = {"Content-Type": "application/json"}


class App:
    """The app in an event loop of its own; the engine's thread is the host's."""

    def __init__(self, path: Path, placement: Placement = PLACEMENT) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.state = self._do(self._start(HostSpec(HostName(path, "tiny", "{}"), LoadPlan(placement))))

    @property
    def end_token(self) -> int:
        """The token that ends an answer."""
        return self.state.engine._loaded.model.vocab.eos

    def post(self, path: str, body: object, headers: Mapping[str, str] = JSON) -> httpx2.Response:
        """Send a body: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, content=raw, headers=headers)

    def send(self, method: str, path: str, **fields: Any) -> httpx2.Response:
        response: httpx2.Response = self._do(self._client.request(method, path, **fields))
        return response

    def chat(self, text: str = "Hello", /, **fields: object) -> httpx2.Response:
        """Ask one question; greedy and short unless `fields` have it otherwise."""
        plain = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0}
        return self.post(CHAT, {**plain, **fields})

    def stream(self, text: str = "Hello", /, **fields: object) -> list[dict[str, Any]]:
        """Return the events of a streamed answer, without its end."""
        response = self.chat(text, stream=True, **fields)
        assert response.status_code == 200, response.text
        return events_of(response.content)

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

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)


def events_of(raw: bytes) -> list[dict[str, Any]]:
    """Return the JSON of server-sent events up to [DONE], which must come last."""
    lines = [line for line in raw.split(b"\n") if line.startswith(b"data: ")]
    assert lines.pop() == b"data: [DONE]"
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


@contextmanager
def tiny_app(folder: Path) -> Iterator[App]:
    """Convert a checkpoint of one layer, and load it; MIXCLI_HOME is the caller's."""
    with _app_of(write_checkpoint(folder / "tiny", n_layer=1, n_embd=64, n_ff=64, n_expert=2)) as app:
        yield app


@contextmanager
def instruct_app(folder: Path, version: str) -> Iterator[App]:
    """Do so with one of Mistral's tokenizers and its chat format."""
    checkpoint = write_native(
        folder / f"instruct-{version}", tokenizer=version, n_layer=1, n_embd=64, n_ff=64, n_expert=2
    )
    with _app_of(checkpoint, replace(PLACEMENT, n_ctx=1024)) as app:
        yield app


@contextmanager
def _app_of(checkpoint: Path, placement: Placement = PLACEMENT) -> Iterator[App]:
    gguf = checkpoint.with_suffix(".gguf")
    convert(checkpoint, gguf, Options(output_type="Q8_0"))
    home = Path(os.environ["MIXCLI_HOME"])
    verdicts.lend(home)
    app = App(gguf, placement)
    try:
        yield app
    finally:
        app.close()
        verdicts.keep(home)
