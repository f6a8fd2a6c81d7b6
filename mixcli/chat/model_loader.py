"""The model of a chat, wherever it is: load it in the background, wait for it, and load it again when it is gone."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mixcli.errors import UsageError

if TYPE_CHECKING:
    from mixcli.client.openai import ChatClient
    from mixcli.host.protocol.host_spec import LoadPlan
    from mixcli.request.prompt import ChatTurn

LOADING, READY, FAILED, GONE = "loading", "ready", "failed", "gone"
POLL_INTERVAL = 0.1  # seconds between two looks at a load that reports nothing


@dataclass(frozen=True)
class LoadState:
    """The visible state of a load: its progress (0 to 1), and the bytes for each device, by kind."""

    status: str
    label: str
    share: float = 0.0
    order: "LoadPlan | None" = None


class HeldModel(Protocol):
    """A model that answers: a process of this machine, or a server."""

    @property
    def client(self) -> "ChatClient": ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def why_no_drafts(self) -> str: ...

    def release(self) -> None: ...


class ChatModel:
    """One model; `changed` is called from the loading thread.

    `load` returns at once. A failed load keeps its error until `wait` raises it; the next `wait` tries again.
    `keep_alive` is seconds, None for a model of a server; `profile` is empty there too.
    """

    profile = ""
    keep_alive: float | None = None
    smaller = False  # loaded with the next smaller plan, because memory ran out with the first

    def __init__(self, name: str | None, label: str) -> None:
        self.name = name
        self.changed: Callable[[], None] = lambda: None
        self.state = LoadState(LOADING, label)
        self.error: Exception | None = None
        self.n_ctx = 0
        self._left = False
        self._thread: threading.Thread | None = None

    @property
    def label(self) -> str:
        return self.state.label

    def load(self) -> None:
        """Begin to load, unless it is loading already."""
        if not self._is_loading():
            self.error = None
            self._show(LOADING, share=0.0)
            self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
            self._thread.start()

    def wait(self, look: Callable[[LoadState], None]) -> HeldModel:
        """Return the loaded model; `look` is shown every state meanwhile. Raises why it cannot be loaded, or KeyboardInterrupt."""
        if not self._is_loading() and self.state.status != READY:  # LOADING where Ctrl-C came in `load`
            self.load()
        assert self._thread
        while self.state.status == LOADING and self._is_loading():
            look(self.state)
            self._thread.join(POLL_INTERVAL)
        if self.error:
            raise self.error
        return self._held()

    def found(self) -> str:
        """Return the label of the named model; UsageError when there is none of that name."""
        raise NotImplementedError

    def alive(self) -> bool:
        """Return whether the loaded model still answers, as far as that can be known without asking it anything."""
        return True

    def lost(self) -> str:
        """Drop a model that does not answer any more and return the cause; it is loaded again for the next message."""
        raise NotImplementedError

    def release(self) -> None:
        """Release the model; its keep_alive starts."""
        self._left = True

    def other(self, name: str) -> "ChatModel":
        """Return another model in the same place."""
        raise NotImplementedError

    def other_names(self) -> Iterable[str]:
        """Return the names of models that `other` knows."""
        return ()

    def placed_by(self, profile: str) -> "ChatModel":  # noqa: ARG002
        """Return the same model, placed by another profile. Raises UsageError for a model of a server."""
        raise UsageError(
            f"{self.label} is not loaded by mixcli, so it has no profile; /model switches to a model on this machine"
        )

    def count(self, messages: "Sequence[ChatTurn]", tools: "Sequence[object]" = ()) -> int:  # noqa: ARG002
        """Count the tokens of a conversation; 0 where that cannot be known now."""
        return 0

    def folds_system(self) -> bool:
        """Return whether the model's format has no system message, so that its text goes into a message of the user."""
        return False

    def order(self) -> "LoadPlan":
        """Return how the model was placed. Raises UsageError where mixcli does not place it, and what planning raises."""
        raise UsageError(
            f"{self.label} is not loaded by mixcli, so it has no plan; /model switches to a model on this machine"
        )

    def estimated_decode(self) -> float | None:
        """Return the roofline estimate of this placement, tokens per second; None where there is none."""
        return None

    def _is_loading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _load(self) -> None:
        """Load, and end with READY or FAILED and its error; in a thread."""
        raise NotImplementedError

    def _held(self) -> HeldModel:
        """Return what was loaded."""
        raise NotImplementedError

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._show(FAILED)

    def _show(
        self,
        status: str,
        *,
        label: str | None = None,
        share: float | None = None,
        order: "LoadPlan | None" = None,
    ) -> None:
        old = self.state
        self.state = LoadState(
            status,
            old.label if label is None else label,
            old.share if share is None else share,
            order or old.order,
        )
        self.changed()


__all__ = ["FAILED", "GONE", "LOADING", "READY", "ChatModel", "HeldModel", "LoadState"]
