"""What a port with several models reports: /v1/models, /health, and its own numbers for /metrics."""

import json
import time
from collections.abc import Collection, Mapping

from mixcli.host.protocol.messages import Fields, number_in, object_of
from mixcli.host.protocol.model_card import model_card, model_list
from mixcli.host.protocol.paths import FAILED, LOADING, READY
from mixcli.host.protocol.port_state import PortModel
from mixcli.serve.eviction import Memory
from mixcli.serve.forwarding import SECRET
from mixcli.serve.metrics import Gauge
from mixcli.serve.model_state import Slot, State

Slots = Collection[Slot]
CREATED = int(time.time())
OF_A_HOST = ("status", "progress", "notes", "model")  # of its /health: in another form here


def status_of(slot: Slot) -> Fields:
    """Return the state of a model as /v1/models has it; `value` as llama-server's router has it, and "failed"."""
    if slot.state is State.UNLOADED and slot.failure is not None:
        return {"value": FAILED, "failed": True, "reason": slot.failure.reason}
    found: dict[str, object] = {"value": slot.state.value}
    if slot.state is State.LOADING:
        found["progress"] = round(slot.progress, 3)
    return found


def port_model(slot: Slot, idle_limit: float) -> PortModel:
    """Return a model for those who look at the port; it is unloaded when it was unused for `idle_limit` seconds."""
    status = status_of(slot)
    expires_in = slot.expires_in(idle_limit)
    return PortModel(
        slot.label,
        str(status["value"]),
        number_in(status.get("progress")),
        slot.failure.reason if slot.failure and status["value"] == FAILED else None,
        slot.n_running,
        len(slot.waiters),
        None if expires_in is None else round(max(0.0, expires_in), 1),
    )


def model(slot: Slot, name: str | None = None) -> bytes:
    """Return the card of a model under one of its names."""
    return json.dumps(_card(slot, name or slot.label)).encode()


def models(slots: Slots) -> bytes:
    """Return the list of all models; each alias has a card of its own, whose `root` is the model."""
    cards = [_card(slot, name) for slot in slots for name in (slot.label, *slot.model.aliases)]
    return json.dumps(model_list(cards)).encode()


def _card(slot: Slot, name: str) -> Fields:
    known = model_card(slot.label, CREATED, slot.model.n_ctx)
    is_alias = name in slot.model.aliases
    return {
        **known,
        **slot.card,
        **dict.fromkeys(("id", "display_name"), name if is_alias else slot.label),
        **({"root": slot.label} if is_alias else {}),
        "status": status_of(slot),
    }


def health(
    slots: Slots, states: Mapping[str, str | None], memory: Memory, *, is_starting: bool, is_brief: bool
) -> tuple[int, bytes]:
    """Return the status and the body of /health; `states` is what each host that runs says of itself, by the model's label.

    The port is ready once the models of the start are loaded: any other one is loaded when it is asked for.
    """
    loading = [slot.progress for slot in slots if slot.state is State.LOADING]
    status = LOADING if is_starting else READY
    progress = min(loading, default=0.0) if is_starting else 1.0
    shown: dict[str, object] = {"status": status, "progress": round(progress, 3)}
    if not is_brief:
        shown["models"] = [_state(slot, states.get(slot.label)) for slot in slots]
        shown["memory"] = {
            device: {"limit": n_bytes, "free": memory.left[device]}
            for device, n_bytes in memory.limits.items()
        }
    return 200 if status == READY else 503, json.dumps(shown).encode()


def _state(slot: Slot, said: str | None) -> Fields:
    status = dict(status_of(slot))
    if slot.state is State.LOADED and said is None:
        status["value"] = State.UNLOADED.value  # its process has ended; the next request starts it again
    host = object_of(json.loads(said)) if said else {}
    return {
        "model": slot.label,
        "status": status.pop("value"),
        **status,
        "n_answering": slot.n_running,
        "n_wait_for_model": len(slot.waiters),
        "bytes": dict(slot.needs),
        **{name: value for name, value in host.items() if name not in (*SECRET, *OF_A_HOST)},
    }


def gauges(slots: Slots, memory: Memory) -> list[Gauge]:
    """Return what the port itself counts."""
    return [
        Gauge("model_loaded", "Whether a model is loaded.", "model", {s.label: float(s.state is State.LOADED) for s in slots}),
        Gauge("model_requests_waiting", "Requests that wait until their model is loaded.", "model", {s.label: float(len(s.waiters)) for s in slots}),
        Gauge("model_loads", "Loads of a model.", "model", {s.label: float(s.counts["loads"]) for s in slots}, is_total=True),
        Gauge("model_load_failures", "Loads of a model that failed.", "model", {s.label: float(s.counts["failures"]) for s in slots}, is_total=True),
        Gauge("model_unloads", "How often a model was unloaded, whatever the reason.", "model", {s.label: float(sum(n for name, n in s.counts.items() if name.startswith("unloads"))) for s in slots}, is_total=True),
        Gauge("memory_limit_bytes", "Memory that models may take.", "device", {d: float(n) for d, n in memory.limits.items()}),
        Gauge("memory_free_bytes", "Memory that the plans of loaded models leave free.", "device", {d: float(n) for d, n in memory.left.items()}),
    ]  # fmt: skip
