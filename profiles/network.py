"""What the network to workers costs: llama.cpp's RPC sends what a step needs, and waits one round trip for each tensor that comes back.

Counted on real connections of llama.cpp's RPC (its scheduler copies the inputs of each run of operations on one device, ggml_backend_sched):

- The first layer gets a hidden state, float32. Between two layers the sum over the chosen experts is left to the second device: their outputs,
  the hidden state and the weights cross, each in a round trip of its own where they come from a worker.
- Experts elsewhere than their layer get a hidden state and the choice, and return the outputs of the chosen experts.
- An output layer on a worker returns logits. Attention on a worker gets a mask, 16 bits a cell.
- A worker is sent its graph where it is not the one that it computed last: for each micro-batch of a prompt, and in every step where a
  token's way comes to it more than once.

Two workers do not speak with each other: what passes from one to the next goes through the host.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from profiles.layout import Layout
from profiles.machine import Gpu, Machine
from profiles.rates import GB
from profiles.shape import ModelShape

FLOAT, HALF = 4, 2  # bytes of a number
GRAPH, CUT_GRAPH, EXPERTS_GRAPH = (
    18_000,
    27_000,
    4_000,
)  # bytes of a layer's graph: whole, cut in parts, only experts
LAN = 0.0002  # seconds of a round trip where none was measured: two machines at one switch


class Way(NamedTuple):
    """Seconds a token that the network to a device takes: for a round trip, a hidden state, the mask, logits, and a byte of graphs.

    `first_byte` is that of the graph of a device that is visited once.
    """

    trip: float = 0.0
    hidden: float = 0.0
    mask: float = 0.0
    logits: float = 0.0
    graph_byte: float = 0.0
    first_byte: float = 0.0


Ways = tuple[Way, ...]  # of each device, the host last; empty where there are no workers


@dataclass
class Visits:
    """What a token's way does at a device: round trips, hidden states there and back, layers with attention, bytes of graphs in each step."""

    n: int = 0
    trips: int = 0
    hiddens: int = 0
    layers: int = 0
    expert_layers: int = 0
    has_output: bool = False

    @property
    def bytes_graph(self) -> int:
        return (CUT_GRAPH if self.n > 1 else GRAPH) * self.layers + EXPERTS_GRAPH * self.expert_layers


@dataclass(frozen=True)
class WorkerPath:
    """The way to a worker's device: seconds of a round trip, GB/s, and how many round trips a step waits for."""

    device: str
    round_trip: float
    gbs: float
    trips: int


@dataclass(frozen=True)
class NetworkShare:
    """What the network takes of a plan: seconds of each token that is decoded, and of each of a prompt; bytes for a decoded token, and for a micro-batch."""

    decode_seconds: float
    prefill_seconds: float
    bytes_token: int
    bytes_ubatch: int
    workers: tuple[WorkerPath, ...]


def ways(
    shape: ModelShape, machine: Machine, n_tokens: float, n_cells: float, *, is_prompt: bool = False
) -> Ways:
    """Return the ways to all devices for a step of `n_tokens` that see `n_cells` each; of a prompt only the last one wants logits."""
    if not any(gpu.kind == "rpc" for gpu in machine.gpus):
        return ()

    def way(gpu: Gpu) -> Way:
        if gpu.kind != "rpc":
            return Way()
        byte = 1 / (gpu.link * GB)
        logits = FLOAT * shape.n_vocab * byte / (n_tokens if is_prompt else 1)
        hidden, mask = FLOAT * shape.n_embd * byte, HALF * n_cells * byte
        graph = byte / n_tokens
        return Way(gpu.round_trip / n_tokens, hidden, mask, logits, graph, graph if is_prompt else 0.0)

    return (*map(way, machine.gpus), Way())


def network_seconds(ways: Ways, shape: ModelShape, layout: Layout) -> float:
    """Return what the network adds to each token of a layout."""
    return sum(map(_seconds, ways, visits(shape, layout))) if ways else 0.0


def _seconds(way: Way, at: Visits) -> float:
    graph = (way.graph_byte if at.n > 1 else way.first_byte) * at.bytes_graph
    moved = way.trip * at.trips + way.hidden * at.hiddens
    return moved + way.mask * (at.layers > 0) + way.logits * at.has_output + graph


def least_change(ways: Ways) -> float:
    """Return what the network adds to any change of devices at the least: nothing where a device of this machine may be at its other end.

    To come to a worker and to leave it takes a round trip and two hidden states, or more.
    """
    return min((way.trip / 2 + way.hidden for way in ways[:-1]), default=0.0)


def visits(shape: ModelShape, layout: Layout) -> list[Visits]:
    """Count what a token's way does at each device, the host last."""
    found = [Visits() for _ in range(layout.host + 1)]
    chosen = shape.n_expert_used or 1
    summed = 3 if shape.n_expert_used else 2  # tensors between two layers: outputs, hidden state, weights
    homes = (*layout.attention, layout.output)
    found[homes[0]].hiddens += 1
    found[homes[0]].n += 1
    for here, there in pairwise(homes):
        if here != there:
            found[here].trips += summed
            found[here].hiddens += chosen + 1
            found[there].hiddens += chosen + 1
            found[there].n += 1
    found[layout.output].trips += 1
    found[layout.output].has_output = True
    for home, experts in zip(layout.attention, layout.experts, strict=True):
        found[home].layers += 1
        for device in set(experts) - {home}:
            for one, trips in ((home, 2), (device, 1)):
                found[one].trips += trips
                found[one].hiddens += 1 + chosen
                found[one].n += 1
            found[device].expert_layers += 1
    return found


def network_share(
    shape: ModelShape,
    machine: Machine,
    layout: Layout,
    seconds: tuple[float, float],
    n_cells: int,
    n_ubatch: int,
) -> NetworkShare | None:
    """Describe the network's part of a layout; `seconds` are those a token of decode and of prefill. None where no worker has a part of it."""
    pairs = zip(machine.gpus, visits(shape, layout), strict=False)
    used = [(gpu, at) for gpu, at in pairs if gpu.kind == "rpc" and at.n]
    if not used:
        return None

    def bytes_of(n_tokens: int) -> int:
        each = [
            n_tokens * (FLOAT * shape.n_embd * at.hiddens + HALF * n_cells * (at.layers > 0))
            + FLOAT * shape.n_vocab * at.has_output
            + at.bytes_graph * (at.n > 1 or n_tokens > 1)
            for _, at in used
        ]
        return sum(each)

    paths = tuple(WorkerPath(gpu.name, gpu.round_trip, gpu.link, at.trips) for gpu, at in used)
    return NetworkShare(*seconds, bytes_of(1), bytes_of(n_ubatch), paths)


__all__ = [
    "LAN",
    "NetworkShare",
    "Visits",
    "Way",
    "Ways",
    "WorkerPath",
    "least_change",
    "network_seconds",
    "network_share",
    "visits",
    "ways",
]
