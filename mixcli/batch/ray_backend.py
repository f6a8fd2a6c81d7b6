"""Run a batch on a Ray cluster: one engine per GPU, or per node without a GPU, each with the plan of its node.

The driver keeps the window, the journal and the order, as with one model; this is only another backend. Requests of a lost node are sent
to another one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixcli.batch.json_input import record_of
from mixcli.batch.record import Record, RecordSource
from mixcli.cluster.connection import cause, connected, lost_errors
from mixcli.cluster.nodes import ClusterNode, isolation_key, nodes_of, on_node
from mixcli.errors import MixcliError, NotReachable, UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.errors import ErrorBody, error_body, raise_error
from mixcli.host.protocol.messages import ChatBody
from mixcli.system.console import console
from mixcli.system.formatting import counted

if TYPE_CHECKING:
    from mixcli.batch.batch import Backend

LOAD_TIMEOUT = 1800.0  # seconds for the engines to load the model
READERS = {".parquet": "read_parquet", ".jsonl": "read_json", ".json": "read_json", ".csv": "read_csv"}


Loader = Callable[
    [str], "Backend"
]  # loads the model of a node for an isolation key; it travels to the node by name


class RayEngine:
    """One engine of the cluster, an actor on its node. Errors travel as a host would send them."""

    def __init__(self, load: "Loader") -> None:
        self._load = load

    def load(self) -> str | ErrorBody:
        """Load the model of this node's store as this node's plan says; returns its identity or an error."""
        try:
            self._backend = self._load(isolation_key())
        except MixcliError as error:
            return error_body(error)[1]
        return self._backend.identity

    def ask(self, body: ChatBody, key: str) -> ChatCompletion | ErrorBody:
        """Return the answer to a request, or an error."""
        try:
            return self._backend(body, key)
        except MixcliError as error:
            return error_body(error)[1]


@dataclass
class _RayWorker:
    """An engine as the driver sees it."""

    actor: Any
    node: str
    n_asked: int = 0


class RayBackend:
    """Asks the engines of a cluster, the one with the fewest requests first; `window` requests are in flight at each."""

    def __init__(self, address: str, load: "Loader", window: int) -> None:
        self._ray = connected(address)
        self._lock = threading.Lock()
        self._seats, self.identity = self._loaded(load, window)
        self.width = len(self._seats)
        console.note(
            f"{counted(self.width, 'engine')} on {counted(len({seat.node for seat in self._seats}), 'node')}"
        )

    def __call__(self, body: ChatBody, key: str) -> ChatCompletion:
        while True:
            seat = self._taken()
            try:
                answer: ChatCompletion | ErrorBody = self._ray.get(seat.actor.ask.remote(body, key))
            except (
                self._ray.exceptions.RayTaskError
            ) as error:  # the engine is there: it failed with this record
                raise MixcliError(
                    f"the engine at {seat.node} failed with this record: {cause(error)}"
                ) from error
            except lost_errors(self._ray) as error:
                self._lose(seat, error)
                continue
            except self._ray.exceptions.RayError as error:
                raise NotReachable(
                    f"Ray cannot reach {seat.node} ({cause(error)}); finished records are saved"
                ) from error
            finally:
                with self._lock:
                    seat.n_asked -= 1
            if isinstance(answer, ErrorBody):
                raise_error(answer)
            return answer

    def close(self) -> None:
        """Release the engines and disconnect from the cluster."""
        for seat in self._seats:
            self._ray.kill(seat.actor)
        self._ray.shutdown()

    def _loaded(self, load: "Loader", window: int) -> tuple[list[_RayWorker], str]:
        """Start an engine everywhere and keep those that load; MixcliError of the first where none does."""
        seats = [seat for node in nodes_of(self._ray) for seat in self._seats_of(node, load, window)]
        waiting = [(seat, seat.actor.load.remote()) for seat in seats]
        good: list[_RayWorker] = []
        identities: set[str] = set()
        failed: ErrorBody | None = None
        deadline = time.monotonic() + LOAD_TIMEOUT
        for seat, loading in waiting:
            try:
                found: str | ErrorBody = self._ray.get(loading, timeout=max(0.0, deadline - time.monotonic()))
            except self._ray.exceptions.GetTimeoutError:  # such as where other programs have the node's CPUs
                self._ray.kill(seat.actor)
                sentence = f"its engine has not loaded the model within {LOAD_TIMEOUT / 60:.0f} minutes; see `ray status`"
                found = ErrorBody(sentence, exit_code=NotReachable.exit_code)
            except self._ray.exceptions.RayError as error:
                found = ErrorBody(cause(error), exit_code=NotReachable.exit_code)
            if isinstance(found, ErrorBody):
                console.warn(f"node {seat.node} is skipped: {found.message}")
                failed = failed or found
            else:
                good.append(seat)
                identities.add(found)
        if not good:
            if failed:
                raise_error(failed)
            raise NotReachable("the Ray cluster has no running node with a free CPU; see `ray status`")
        if len(identities) > 1:
            raise UsageError(
                f"the nodes have different weights for that model name: {'; '.join(sorted(identities))}; "
                "copy or pull the same files everywhere"
            )
        return good, identities.pop()

    def _seats_of(self, node: ClusterNode, load: "Loader", window: int) -> Iterator[_RayWorker]:
        actor = self._ray.remote(RayEngine).options(
            **node.resources, scheduling_strategy=on_node(self._ray, node), max_concurrency=window
        )
        for _ in range(node.n_engines):
            yield _RayWorker(actor.remote(load), node.address)

    def _taken(self) -> _RayWorker:
        with self._lock:
            if not self._seats:
                raise NotReachable(
                    "all nodes of the cluster are lost; finished records are saved; rerun the command"
                )
            seat = min(self._seats, key=lambda seat: seat.n_asked)
            seat.n_asked += 1
            return seat

    def _lose(self, seat: _RayWorker, error: Exception) -> None:
        with self._lock:
            if seat in self._seats:
                self._seats.remove(seat)
                console.warn(
                    f"node {seat.node} is lost ({type(error).__name__}); its records are sent to other nodes"
                )


def distant_source(address: str, source: str) -> RecordSource:
    """Return the rows of a file that Ray Data reads: Parquet, or JSON and CSV of an object store (s3://, gs://), as they stream in."""
    connected(address)
    import ray.data

    reader = next((name for suffix, name in READERS.items() if source.lower().endswith(suffix)), None)
    if reader is None:
        raise UsageError(f"Ray reads {', '.join(READERS)}; {source} is not one of them")
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    dataset = getattr(ray.data, reader)(source)
    columns = tuple(dataset.schema().names)

    def records() -> Iterator[Record]:
        for number, row in enumerate(dataset.iter_rows(), 1):
            plain = {str(name): _plain(value) for name, value in row.items()}
            yield record_of(number, plain, "row")

    return RecordSource("table", records(), columns)


def _plain(value: Any) -> Any:
    """Return a cell of a table as JSON has it, so that it reads as in a file of JSON lines; dates and the like become texts."""
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def is_distant(source: str) -> bool:
    """Return whether only Ray can read an input."""
    return "://" in source or source.lower().endswith(".parquet")
