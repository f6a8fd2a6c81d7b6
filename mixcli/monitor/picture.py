"""Draw a snapshot: a block of lines for every model and every port, which flow into as many columns as there are."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap

from mixcli.client.host_watch import PENDING, STOPPING, UNRESPONSIVE
from mixcli.client.port_watch import ServedPort
from mixcli.host.protocol.health import HostUse
from mixcli.host.protocol.paths import FAILED, LOADING, READY
from mixcli.host.protocol.port_state import PortModel, SharedDevice
from mixcli.monitor.snapshot import ENDED, SeenHost, Snapshot, unloads
from mixcli.system.formatting import counted, format_bytes

Piece = tuple[str, str]  # text and style
Line = list[Piece]

NOTHING = "no model is loaded; start one with `mixcli chat` or `mixcli serve`"
GAP = "   "
LABEL = 10  # columns of the names of lines
INDENT = "  "
BAR = 16  # columns, where there is room
WORDS = {UNRESPONSIVE: "no response", PENDING: "…"}
STYLES = {
    READY: "green",
    "loaded": "green",
    LOADING: "yellow",
    "unloading": "yellow",
    STOPPING: "yellow",
    ENDED: "red",
    FAILED: "bold red",
    UNRESPONSIVE: "bold red",
}
LABELS, QUIET = "cyan", "dim"
DEVICES = {"host": "RAM"}


def drawn(snapshot: Snapshot, width: int, footer: str = "") -> list[Line]:
    """Return the picture for so many columns; the last line is the `footer`."""
    blocks = [_totals(snapshot, width)]
    blocks += [_model(one, width) for one in snapshot.models]
    blocks += [_port(port, width) for port in snapshot.ports]
    if not snapshot.models and not snapshot.ports:
        blocks = [[[(line, "")] for line in wrap(NOTHING, width)]]
    if footer:
        blocks.append([[(footer, QUIET)]])
    return [line for number, block in enumerate(blocks) for line in ([[], *block] if number else block)]


def cut(lines: Sequence[Line], height: int) -> list[Line]:
    """Return as many lines as fit; where some do not, the last one tells how many are left out."""
    if len(lines) <= height:
        return list(lines)
    kept = max(0, height - 2)
    note = f"… {counted(len(lines) - kept - 1, 'line')} more; enlarge the window, or use `mixcli ps`"
    return [*lines[:kept], [(note, QUIET)], lines[-1]][-height:]


def _totals(snapshot: Snapshot, width: int) -> list[Line]:
    """Return what all models do together."""
    hosts = [one.host for one in snapshot.models]
    n_running, n_waiting = (
        sum(getattr(host.counts, name) for host in hosts) for name in ("n_running", "n_waiting")
    )
    n_bytes = sum(one.resident or 0 for one in snapshot.models)
    items = [
        [(counted(len(hosts), "model"), "bold")],
        [(counted(len(snapshot.ports), "server"), "bold")],
        [(f"{n_running} running, {n_waiting} waiting", "")],
        [(f"{sum(host.use.decode_tps or 0.0 for host in hosts):,.1f} tok/s decode", "")],
        [(f"{format_bytes(n_bytes)} resident", "")],
    ]
    return _flow(items, width)


def _model(one: SeenHost, width: int) -> list[Line]:
    host = one.host
    head = [
        [(host.model or "?", "bold")],
        [(f"pid {host.pid}", QUIET)],
        [_status(host.status, host.progress)],
        *([[(f"unloads {unloads(host)}", QUIET)]] if host.status not in (ENDED, PENDING) else []),
    ]
    lines = _flow(head, width)
    if host.status == READY:
        counts, use = host.counts, host.use
        requests = [
            _figure(counts.n_running, "running", "bold" if counts.n_running else ""),
            _figure(counts.n_waiting, "waiting", "bold yellow" if counts.n_waiting else ""),
            [("prefill ", QUIET), (_rate(use.prefill_tps), "")],
            [("decode ", QUIET), (_rate(use.decode_tps), "")],
        ]
        lines += _named("requests", requests, width)
        lines += _named("KV cache", [_cells(use, width), _hits(use)], width)
    if host.status != ENDED:
        planned = _ledger(host.use.memory) if host.status == READY else []
        lines += _named("memory", [*planned, _resident(one.resident)], width)
    return lines


def _port(port: ServedPort, width: int) -> list[Line]:
    state = port.state
    loading = [one.progress for one in state.models if one.status == LOADING and one.progress is not None]
    head = [
        [(port.url, "bold")],
        [("server", QUIET)],
        [(f"pid {port.pid}", QUIET)],
        [_status(state.status, min(loading, default=None) if state.status == LOADING else None)],
    ]
    lines = _flow(head, width)
    widest = min(max((len(one.model) for one in state.models), default=0), width // 2)
    for one in state.models:
        lines += _flow(_served(one, widest), width - len(INDENT), INDENT)
    if state.memory:
        lines += _named("memory", [_shared(device, one) for device, one in state.memory.items()], width)
    return lines


def _served(one: PortModel, widest: int) -> list[Line]:
    """Return the items of a model of a port."""
    items: list[Line] = [
        [(_shortened(one.model, widest).ljust(widest), "")],
        [_status(one.status, one.progress)],
    ]
    items.append(_figure(one.n_answering, "answering", "bold" if one.n_answering else ""))
    items.append(_figure(one.n_waiting, "waiting", "bold yellow" if one.n_waiting else ""))
    if one.expires_in is not None:
        items.append([(f"unloads in {one.expires_in:.0f} s", QUIET)])
    if one.reason:
        items.append([(one.reason, "red")])
    return items


# items


def _status(status: str, progress: float | None) -> Piece:
    share = f" {100 * progress:.0f} %" if status == LOADING and progress is not None else ""
    return f"{WORDS.get(status, status)}{share}", STYLES.get(status, "")


def _figure(n: int | None, what: str, style: str) -> Line:
    return [("-" if n is None else f"{n:,}", style), (f" {what}", QUIET)]


def _rate(tps: float | None) -> str:
    return "-" if tps is None else f"{tps:>6,.1f} tok/s"


def _cells(use: HostUse, width: int) -> Line:
    """Return how much of the KV cache is used, with a bar where there is room for one."""
    if use.n_kv_cells is None or use.n_kv_cells_used is None:
        return [("-", "")]
    text = f"{use.n_kv_cells_used:,} of {use.n_kv_cells:,} tokens"
    bar = min(BAR, width - LABEL - len(INDENT) - len(text) - 1)
    if bar < BAR // 2:
        return [(text, "")]
    full = round(bar * use.n_kv_cells_used / max(1, use.n_kv_cells))
    full = max(full, 1) if use.n_kv_cells_used else 0
    return [("█" * full, "blue"), ("░" * (bar - full), QUIET), (f" {text}", "")]


def _hits(use: HostUse) -> Line:
    """Return how many of the prompt tokens were found in the cache."""
    known = use.n_prompt_tokens is not None and use.n_prompt_tokens_cached is not None
    share = "-"
    if known and use.n_prompt_tokens:
        share = f"{100 * (use.n_prompt_tokens_cached or 0) / use.n_prompt_tokens:.0f} %"
    return [("prefix hits ", QUIET), (share, "")]


def _ledger(memory: Mapping[str, int] | None) -> list[Line]:
    """Return what the plan takes of each device."""
    if not memory:
        return [[("planned ", QUIET), ("-", "")]]
    items: list[Line] = [
        [(f"{DEVICES.get(device, device)} ", QUIET), (format_bytes(n_bytes), "")]
        for device, n_bytes in memory.items()
    ]
    items[0].insert(0, ("planned ", QUIET))
    return items


def _resident(n_bytes: int | None) -> Line:
    return [("resident ", QUIET), ("-" if n_bytes is None else format_bytes(n_bytes), "")]


def _shared(device: str, memory: SharedDevice) -> Line:
    used = format_bytes(max(0, memory.limit - memory.free))
    return [(f"{DEVICES.get(device, device)} ", QUIET), (f"{used} of {format_bytes(memory.limit)}", "")]


# lines


def _named(name: str, items: Iterable[Line], width: int) -> list[Line]:
    """Return lines of items behind the name of what they tell."""
    indent = INDENT + " " * LABEL
    lines = _flow(items, width - len(indent), indent)
    first = lines[0]
    return [[(INDENT, ""), (name.ljust(LABEL), LABELS), *first[1:]], *lines[1:]]


def _flow(items: Iterable[Line], width: int, indent: str = "") -> list[Line]:
    """Put items into lines, each with the indent before it; an item that is longer than a line is cut short."""
    lines: list[Line] = []
    left = 0
    for item in items:
        n = sum(len(text) for text, _ in item)
        if lines and len(GAP) + n <= left:
            lines[-1] += [(GAP, ""), *item]
            left -= len(GAP) + n
        else:
            lines.append([(indent, ""), *_fitting(item, width)])
            left = width - n
    return lines


def _fitting(item: Line, width: int) -> Line:
    """Return the first `width` columns of an item, with a sign for what is cut off."""
    kept: Line = []
    left = width
    for text, style in item:
        if left > 0:
            kept.append((_shortened(text, left), style))
            left -= len(text)
    return kept


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


__all__ = ["NOTHING", "cut", "drawn"]
