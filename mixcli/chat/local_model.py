"""The model of a chat on this machine: its process is started or attached to, and started again when it died."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mixcli.chat.model_loader import GONE, LOADING, READY, ChatModel
from mixcli.errors import MixcliError, NotInstalled
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.client.process import Host
    from mixcli.host.protocol.host_spec import LoadPlan
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.prompt import ChatTurn
    from mixcli.store.store import StoredModel


class LocalModel(ChatModel):
    """A model and its load options."""

    def __init__(self, name: str | None, load_options: "LoadOptions", keep_alive: float) -> None:
        super().__init__(name, name or "the model")
        self.load_options = load_options
        self.profile = load_options.profile or "auto"
        self.keep_alive = self._seconds = keep_alive
        self._host: Host | None = None
        self._stored: StoredModel | None = None
        self._less = False

    def found(self) -> str:
        return self.stored().label

    def other(self, name: str) -> "LocalModel":
        load_options = replace(self.load_options, draft=None)  # which is that of the current model
        return LocalModel(name, load_options, self._seconds)

    def other_names(self) -> Iterable[str]:
        from mixcli.store.store import models

        return [one.label for one in models()]

    def placed_by(self, profile: str) -> "LocalModel":
        load_options = replace(self.load_options, profile=None if profile == "auto" else profile)
        return LocalModel(self.name, load_options, self._seconds)

    def alive(self) -> bool:
        if self._host is None:
            return False
        try:
            self._host.client.health()
        except (OSError, ValueError):
            return False
        return True

    def count(self, messages: "Sequence[ChatTurn]", tools: "Sequence[object]" = ()) -> int:
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
        super().release()
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
        from mixcli.store.headers import header_of

        try:
            template = header_of(self.stored().parts).get("tokenizer.chat_template")
        except MixcliError:  # it is loaded anyway, so the file was changed meanwhile
            return False
        return isinstance(template, str) and "[INST]" in template and "[SYSTEM_PROMPT]" not in template

    def order(self) -> "LoadPlan":
        """Return how the model was placed; planned again where another command has loaded it."""
        from mixcli.planning.plan_load import plan_load

        return self.state.order or plan_load(self.stored(), self.load_options)

    def estimated_decode(self) -> float | None:
        from mixcli.planning.plan_load import estimated_decode

        try:
            return estimated_decode(self.stored(), self.load_options, self.order().placement)
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            return None

    def _held(self) -> "Host":
        assert self._host
        return self._host

    def _load(self) -> None:
        from mixcli.client.process import KILLED
        from mixcli.planning.launch import begin

        try:
            stored = self.stored()
            self._show(LOADING, label=stored.label)
            loading = begin(stored, self.load_options, self._seconds, use_smaller_plan=self._less)
            if loading.plan:
                self._placed(loading.plan)
            host = loading.wait(self._report)
            self.n_ctx = host.client.health().n_ctx or 0
        except Exception as error:
            self._less = self._less or KILLED in str(error)
            self._fail(error)
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
