"""The model of a chat: load it in the background, and reload it when its process died."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixcli.errors import MixcliError, NotInstalled
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.client.process import Host
    from mixcli.host.protocol.host_spec import LoadPlan
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.prompt import ChatTurn
    from mixcli.store.store import StoredModel

LOADING, READY, FAILED, GONE = "loading", "ready", "failed", "gone"
POLL_INTERVAL = 0.1  # seconds between two looks at a load that reports nothing


@dataclass(frozen=True)
class LoadState:
    """The visible state of a load: its progress (0 to 1), and the bytes for each device, by kind."""

    status: str
    label: str
    share: float = 0.0
    order: "LoadPlan | None" = None


class ChatModel:
    """One model and its load options; `changed` is called from the loading thread.

    `load` returns at once. A failed load keeps its error until `wait` raises it; the next `wait` tries again.
    """

    def __init__(
        self,
        name: str | None,
        load_options: "LoadOptions",
        keep_alive: float,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.load_options = load_options
        self.keep_alive = keep_alive
        self.changed = changed
        self.state = LoadState(LOADING, name or "the model")
        self.error: Exception | None = None
        self.n_ctx = 0
        self._host: Host | None = None
        self._stored: StoredModel | None = None
        self.smaller = False  # loaded with the next smaller plan, because memory ran out with the first
        self._less = False
        self._left = False
        self._thread: threading.Thread | None = None

    @property
    def label(self) -> str:
        return self.state.label

    @property
    def profile(self) -> str:
        return self.load_options.profile or "auto"

    def load(self) -> None:
        """Begin to load, unless that is going on."""
        if self._thread is None or not self._thread.is_alive():
            self.error = None
            self._show(LOADING, share=0.0)
            self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
            self._thread.start()

    def wait(self, look: Callable[[LoadState], None]) -> "Host":
        """Return the loaded model; `look` is shown every state meanwhile. Raises why it cannot be loaded, or KeyboardInterrupt."""
        if self.state.status in (FAILED, GONE) or self._thread is None:
            self.load()
        assert self._thread
        while self.state.status == LOADING and self._thread.is_alive():
            look(self.state)
            self._thread.join(POLL_INTERVAL)
        if self.error:
            raise self.error
        assert self._host
        return self._host

    def alive(self) -> bool:
        """Return whether the loaded model still answers."""
        if self._host is None:
            return False
        try:
            self._host.client.health()
        except (OSError, ValueError):
            return False
        return True

    def count(self, messages: "Sequence[ChatTurn]", tools: "Sequence[object]" = ()) -> int:
        """Count the tokens of a conversation; 0 where that cannot be known now."""
        if self._host is None or not messages:
            return 0
        try:
            return self._host.client.count_messages(messages, tools).count or 0
        except (MixcliError, OSError):
            return 0

    def lost(self) -> str:
        """Drop a model whose process has ended and return the cause; reload it, with a smaller plan if memory ran out."""
        from mixcli.client.process import KILLED

        assert self._host
        cause = self._host.cause_of_death()
        self._less = cause == KILLED
        self.release()
        self._left = False
        self._show(GONE)
        return cause

    def release(self) -> None:
        """Release the model; its keep_alive starts."""
        self._left = True
        if self._host is not None:
            self._host.release()
            self._host = None

    def stored(self) -> "StoredModel":
        """Find the model's file; UsageError when there is none of that name."""
        if self._stored is None:
            from mixcli.store.store import find

            try:
                self._stored = find(self.name)
            except NotInstalled as missing:
                from mixcli.planning.offers import with_offer

                raise with_offer(missing, self.load_options) from None
        return self._stored

    def folds_system(self) -> bool:
        """Return whether the model's format has no system message, so that its text goes into a message of the user."""
        from mixcli.store.headers import header_of

        try:
            template = header_of(self.stored().parts).get("tokenizer.chat_template")
        except MixcliError:  # it is loaded all the same, so the file was changed meanwhile
            return False
        return isinstance(template, str) and "[INST]" in template and "[SYSTEM_PROMPT]" not in template

    def order(self) -> "LoadPlan":
        """Return how the model was placed; planned again where another command has loaded it. Raises what planning raises."""
        from mixcli.planning.plan_load import plan_load

        return self.state.order or plan_load(self.stored(), self.load_options)

    def estimated_decode(self) -> float | None:
        """Return the roofline estimate of this placement, tokens per second; None where the machine cannot be described."""
        from mixcli.planning.plan_load import estimated_decode

        try:
            return estimated_decode(self.stored(), self.load_options, self.order().placement)
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            return None

    def _load(self) -> None:
        from mixcli.client.process import KILLED
        from mixcli.planning.launch import begin

        try:
            stored = self.stored()
            self._show(LOADING, label=stored.label)
            loading = begin(stored, self.load_options, self.keep_alive, use_smaller_plan=self._less)
            if loading.plan:
                self._placed(loading.plan)
            host = loading.wait(self._report)
            self.n_ctx = host.client.health().n_ctx or 0
        except Exception as error:
            self._less = self._less or KILLED in str(error)
            self.error = error
            self._show(FAILED)
            return
        self._host = host
        if self._left:  # the chat was left meanwhile
            host.release()
        self._show(READY, share=1.0)

    def _report(self, done: float, total: float, _stage: str) -> None:
        self._show(LOADING, share=done / total if total else 0.0)

    def _placed(self, order: "LoadPlan") -> None:
        self.smaller = self._less
        self._show(LOADING, order=order)
        for reason in order.reasons:
            console.note(reason)

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
