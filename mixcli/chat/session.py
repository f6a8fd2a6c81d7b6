"""A chat's state: its conversation and its model, how both are shown, and how the model is switched.

It knows neither the loop, which listens to `changed`, nor what acts on it: answering.py and the slash commands.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mixcli.chat.conversation import Conversation
from mixcli.chat.export import ENDED
from mixcli.chat.files import Attachment
from mixcli.chat.model_loader import LOADING, READY, ChatModel, HeldModel, LoadState
from mixcli.chat.sessions import StoredMessage
from mixcli.chat.terminal_modes import is_dumb
from mixcli.chat.view import notes
from mixcli.chat.view.calls import folded, shown_call
from mixcli.chat.view.stats import TurnStats
from mixcli.chat.view.toolbar import Gauges, loading
from mixcli.errors import MixcliError
from mixcli.request.settings import DROP_OLDEST
from mixcli.system.console import console
from mixcli.system.formatting import counted

if TYPE_CHECKING:
    from mixcli.chat.tool_calls import ToolRunner
    from mixcli.chat.view.render import View

WARM = ("mixcli.chat.view.render", "mixcli.chat.turn")  # imported while the person types the first message


@dataclass
class ChatSession:
    """What a chat consists of, and what can be done with it.

    `draft` is what stands in the next prompt already, `leaving` ends the loop, `said` are notes that are given once, `tools` is None where
    the model has none. `changed` is called from the loading thread when the load has made a step.
    """

    conversation: Conversation
    model: ChatModel
    plain: bool = False
    ephemeral: bool = False
    files: list[Attachment] = field(default_factory=list)
    stats: TurnStats = field(default_factory=TurnStats)
    draft: str = ""
    leaving: bool = False
    said: set[str] = field(default_factory=set)
    n_failed: int = 0  # messages without an answer
    n_refused: int = 0  # commands that failed
    n_counted: int = 0  # tokens of a branch whose last answer has no statistics
    n_dropped: int = 0  # messages that were said to be left out
    tools: "ToolRunner | None" = None
    changed: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.talking = console.is_terminal(sys.stdin)
        self.live = console.is_terminal(sys.stdout) and not is_dumb() and not self.plain

    @property
    def seen(self) -> bool:
        """Return whether a person reads the answers as they come."""
        return self.talking and console.is_terminal(sys.stdout)

    def load(self) -> None:
        """Load the model, and what the first answer needs, in the background."""
        self.model.changed = self._on_load
        if self.model.state.status == LOADING:
            self.model.load()
        threading.Thread(target=lambda: [importlib.import_module(name) for name in WARM], daemon=True).start()

    def view(self) -> "View":
        """Return where the next answer is shown."""
        from mixcli.chat.view.render import LiveView, PlainView

        return (
            LiveView(sys.stdout) if self.live and self.conversation.settings.get("markdown") else PlainView()
        )

    @property
    def n_used(self) -> int:
        """Count the tokens in the context, as far as they are known."""
        return self.stats.n_in_context or self.n_counted

    @property
    def definitions(self) -> Sequence[object]:
        """Return the definitions of the tools, as a request has them."""
        return self.tools.toolbox.definitions() if self.tools else ()

    def gauges(self) -> Gauges:
        """Return what the line at the bottom shows."""
        label = self.model.label
        return Gauges(
            notes.short(label),
            self.model.profile,
            self.n_used,
            self.model.n_ctx,
            self.stats.decode_rate,
            self.model.keep_alive,
            len(self.files),
            self.conversation.name,
            self.conversation.store.in_memory,
            self.conversation.settings.get("overflow") == DROP_OLDEST,
        )

    def use(self, model: ChatModel) -> None:
        """Switch to another model, or another placement of the same one; UsageError if its file does not exist."""
        model.state = LoadState(LOADING, model.found())
        self.model.release()
        self.model = model
        self.stats = TurnStats()
        self.n_dropped = 0
        self.said.clear()
        self.load()

    def loaded(self) -> HeldModel:
        """Return the loaded model to a command that asks it something."""
        view = self.view()
        try:
            return self.loaded_behind(view)
        finally:
            view.close()

    def forget_stats(self) -> None:
        """Reset the statistics of the last answer after a switch to another branch or conversation."""
        self.stats = TurnStats()
        self.n_dropped = 0
        self.count()

    def greet(self) -> None:
        """Show which conversation is resumed, and print its last turn to a person: a pipe gets new answers only."""
        session = self.conversation.session
        if session is None:
            if self.seen:
                self._welcome()
            return
        if self.seen:
            self.show(self.conversation.last_turn())
        same = not session.model or session.model.startswith(self.model.label)
        other = "" if same else f"; previous model: {session.model}"
        console.note(f"({session.name}, {counted(len(self.conversation.messages), 'message')}{other})")

    # parts of it

    def _welcome(self) -> None:
        """Print which model answers, and how to find the commands."""
        try:
            label = self.model.found()
        except MixcliError:  # the load says why
            return
        console.note(notes.welcome(label, self.model.profile))

    def _note_placement(self) -> None:
        """Print, once for each model, what is where; nothing where another command has loaded it."""
        if self.seen and (order := self.model.state.order):
            self.note_once(notes.placement(self.model.label, order, self.model.n_ctx))

    def loaded_behind(self, view: "View") -> HeldModel:
        """Return the loaded model; the load is shown where the answer will be. Raises why it cannot be loaded, or KeyboardInterrupt."""
        if self.model.state.status == READY and not self.model.alive():
            self._mourn()
        host = self.model.wait(lambda state: view.status(*loading(state)))
        view.status()
        self._note_placement()
        for note in host.notes:
            self.note_once(note)
        if self.conversation.settings.get("speculate") and host.why_no_drafts:
            self.note_once(host.why_no_drafts)
        if self.model.smaller:
            self.note_once("(loaded with the next smaller plan, because memory may have run out)")
        return host

    def _mourn(self) -> None:
        cause = self.model.lost()
        console.warn(f"the model process crashed ({cause}); the conversation is saved; reloading the model")

    def note_once(self, text: str) -> None:
        """Print a note, but only once."""
        if text not in self.said:
            self.said.add(text)
            console.note(text)

    def show(self, messages: list[StoredMessage]) -> None:
        """Show turns again, as they looked."""
        for message in messages:
            if message.role == "user":
                console.note("\n".join(f"> {row}" for row in message.content.splitlines()))
            elif message.role == "tool":
                console.note(folded(message.content))
            else:
                view = self.view()
                view.feed(message.content)
                view.close()
                for call in message.calls:
                    console.note(shown_call(call))
                if message.state in ENDED:
                    console.note(f"({ENDED[message.state]})")

    def count(self) -> None:
        """Ask the model's tokenizer how full the context is, when nothing else tells."""
        self.n_counted = (
            (self.model.count(self.conversation.to_messages(), self.definitions) or self.n_counted)
            if self.conversation.messages
            else 0
        )

    def _on_load(self) -> None:
        """Count the context of a conversation that a model was loaded for, and tell the listener."""
        if self.model.state.status == READY and not self.stats.n_prompt:
            self.count()
        self.changed()
