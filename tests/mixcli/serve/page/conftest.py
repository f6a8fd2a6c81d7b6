"""One browser for the tests of each file, and two servers: one of the demo, one whose answers are prepared.

The browser ends with the file: while Playwright runs, no other test of the process could run an event loop of its own.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixcli.serve.chat_page import page_files
from mixcli.serve.gate import Gate, names_of
from mixcli.serve.keys import KeyRing
from tests.support.hosts import PLACEMENT, held_for_a_file
from tests.support.ports import Port, served
from tests.support.scripted_host import ScriptedHost, scripted_host

SECONDS = 60  # that any step may take on a slow machine
KEY = "correct-horse-battery-staple"
OPEN = Gate(names_of("127.0.0.1", ()), pages=page_files())
LOCKED = Gate(names_of("127.0.0.1", ()), KeyRing(KEY, None, print), pages=page_files())
# no service of the browser's maker, what a container needs, and a tab in the background that computes as one in front does
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return Debian's Chromium, driven by Playwright; the tests are skipped where one of them is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: run `make browser`"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: run `make browser`")
    sync_api.expect.set_options(timeout=SECONDS * 1000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Site:
    """A server of the page that may be stopped and started again at the same port."""

    socket: Path
    gate: Gate
    number: int = 0
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}/"

    def start(self) -> None:
        self.port: Port = self._running.enter_context(served(self.socket, self.gate, number=self.number))
        self.number = self.port.number

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedHost]:
    with tempfile.TemporaryDirectory(prefix="page-") as folder, scripted_host(Path(folder)) as host:
        yield host


def _running(socket: Path, gate: Gate) -> Iterator[Site]:
    site = Site(socket, gate)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def site(scripted: ScriptedHost) -> Iterator[Site]:
    """Serve prepared answers."""
    yield from _running(scripted.socket, OPEN)


@pytest.fixture(scope="module")
def locked_site(scripted: ScriptedHost) -> Iterator[Site]:
    """Serve them to those who have the key."""
    yield from _running(scripted.socket, LOCKED)


@pytest.fixture(scope="module")
def demo_site(tmp_path_factory: pytest.TempPathFactory, demo_path: Callable[[str], Path]) -> Iterator[Site]:
    """Serve the demo."""
    with held_for_a_file(tmp_path_factory, demo_path, PLACEMENT) as host:
        yield from _running(host.name.socket, OPEN)


@dataclass
class Visit:
    """A browser of its own, without anything stored; `requests` are all addresses that it asked for, `faults` what its console said."""

    context: Any
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def open(self, url: str, *, is_ready: bool = True) -> Any:
        """Open a tab, and wait until the page knows the models; not for a server that does not tell them yet (`is_ready` is False)."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)
        page.goto(url)
        if is_ready:
            page.locator("#model option[value]").first.wait_for(state="attached")
        return page

    def _heard(self, message: Any) -> None:
        # a refused or failed request is written there too; what the page makes of it is tested by its words
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)


@pytest.fixture
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Visit the page as `pytest.mark.parametrize("visit", [options of the browser's context], indirect=True)` has it."""
    visit = Visit(browser.new_context(**getattr(request, "param", {})))
    visit.context.set_default_timeout(SECONDS * 1000)
    visit.context.on("request", lambda one: visit.requests.append(one.url))
    yield visit
    visit.context.close()
    assert [
        url
        for url in visit.requests
        if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:image/svg"))
    ] == []
    assert visit.faults == []
