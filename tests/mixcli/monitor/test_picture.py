"""The picture of what runs: what stands in it, at any width and height."""

from collections.abc import Sequence

import pytest

from mixcli.client.host_watch import UNRESPONSIVE
from mixcli.client.port_watch import ServedPort
from mixcli.host.protocol.health import HostCounts, HostHealth, HostUse
from mixcli.host.protocol.port_state import PortModel, PortState, SharedDevice
from mixcli.monitor.picture import NOTHING, Line, cut, drawn
from mixcli.monitor.snapshot import SeenHost, Snapshot

GB = 10**9
USE = HostUse(512.3, 48.12, 8192, 2048, 2000, 1500, {"host": 5 * GB, "CUDA0": 21 * GB})
BUSY = HostHealth(
    "ready", 4711, 1.0, (), "mixtral:Q4_K_M", "/m.gguf", 26 * GB, 8192, HostCounts(2, 5), 3, None, USE
)
OLD = HostHealth("ready", 4712, 1.0, (), "old:Q4_K_M", "/o.gguf", 1, 512, HostCounts(1, 0), 0, 30.0)
SILENT = HostHealth(
    UNRESPONSIVE, 4713, model="a-name-that-is-longer-than-any-line-of-a-narrow-terminal:Q4_K_M"
)
LOADING = HostHealth("loading", 4714, 0.43, (), "demo:Q8_0", busy=1)
PORT = ServedPort(
    "http://127.0.0.1:8080/v1",
    4800,
    PortState(
        "ready",
        (
            PortModel("mixtral:Q4_K_M", "loaded", None, None, 2, 0, 840.2),
            PortModel("demo:Q8_0", "loading", 0.43, None, 0, 1),
            PortModel("big:Q8_0", "failed", None, "it takes 93.1 GB", 0, 0),
        ),
        {"host": SharedDevice(32 * GB, 20 * GB)},
    ),
)
ALL = Snapshot(tuple(SeenHost(host, 5 * GB + GB // 2) for host in (BUSY, OLD, SILENT, LOADING)), (PORT,))


def text(lines: Sequence[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


def test_a_wide_terminal_shows_a_model_in_four_lines_and_a_port_in_one_a_model() -> None:
    assert text(drawn(ALL, 100, "q quits")) == [
        "4 models   1 server   3 running, 5 waiting   48.1 tok/s decode   22.0 GB resident",
        "",
        "mixtral:Q4_K_M   pid 4711   ready   unloads when unused",
        "  requests  2 running   5 waiting   prefill  512.3 tok/s   decode   48.1 tok/s",
        "  KV cache  ████░░░░░░░░░░░░ 2,048 of 8,192 tokens   prefix hits 75 %",
        "  memory    planned RAM 5.0 GB   CUDA0 21.0 GB   resident 5.5 GB",
        "",
        "old:Q4_K_M   pid 4712   ready   unloads in 30 s",
        "  requests  1 running   0 waiting   prefill -   decode -",
        "  KV cache  -   prefix hits -",
        "  memory    planned -   resident 5.5 GB",
        "",
        "a-name-that-is-longer-than-any-line-of-a-narrow-terminal:Q4_K_M   pid 4713   no response",
        "unloads with `mixcli stop`",
        "  memory    resident 5.5 GB",
        "",
        "demo:Q8_0   pid 4714   loading 43 %   unloads when unused",
        "  memory    resident 5.5 GB",
        "",
        "http://127.0.0.1:8080/v1   server   pid 4800   ready",
        "  mixtral:Q4_K_M   loaded   2 answering   0 waiting   unloads in 840 s",
        "  demo:Q8_0        loading 43 %   0 answering   1 waiting",
        "  big:Q8_0         failed   0 answering   0 waiting   it takes 93.1 GB",
        "  memory    RAM 12.0 GB of 32.0 GB",
        "",
        "q quits",
    ]


def test_a_terminal_that_is_too_narrow_gets_the_beginnings() -> None:
    assert max(map(len, text(drawn(ALL, 20)))) <= 20


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_longer_than_the_terminal_and_nothing_is_lost(width: int) -> None:
    lines = text(drawn(ALL, width))
    assert max(map(len, lines)) <= width
    words = " ".join(lines)
    for figure in ("512.3 tok/s", "48.1 tok/s", "of 8,192", "no response", "loading 43 %", "pid 4800"):
        assert figure in words, words


def test_what_does_not_fit_in_height_is_counted() -> None:
    lines = drawn(ALL, 80, "q quits")
    assert cut(lines, len(lines)) == lines
    shown = text(cut(lines, 10))
    assert (len(shown), shown[:8]) == (10, text(lines)[:8])
    assert shown[8:] == [f"… {len(lines) - 9} lines more; enlarge the window, or use `mixcli ps`", "q quits"]
    assert text(cut(lines, 1)) == ["q quits"]


def test_nothing_running_is_one_sentence() -> None:
    assert text(drawn(Snapshot(), 100)) == [NOTHING]
    assert " ".join(text(drawn(Snapshot(), 40))) == NOTHING
    assert "mixcli chat" in NOTHING
