"""One turn: send the request, show the answer as it streams, save it even if it is incomplete."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixcli.chat.conversation import Conversation
from mixcli.chat.interrupts import Interrupts
from mixcli.chat.sessions import CUT, DONE, FAILED, STOPPED
from mixcli.chat.view.calls import visible
from mixcli.chat.view.render import View
from mixcli.chat.view.stats import TurnStats
from mixcli.client.completions import calls_of
from mixcli.host.protocol.messages import ChatBody, Delta, PromptProgress
from mixcli.request.prompt import FunctionCall

if TYPE_CHECKING:
    from mixcli.chat.model_loader import HeldModel

STATUS_EVERY = 0.25  # seconds between two changes of the rate that is shown

# returns the line below an answer: from a decode rate (tokens per second), and the tokens of the prompt (0: not known) and of the answer
Status = Callable[[float, int, int], str]


@dataclass(frozen=True)
class Outcome:
    """How a turn ended: the state of its answer, what it cost, how many old messages were left out, what went wrong, the tools to call."""

    state: str
    stats: TurnStats
    n_dropped: int = 0
    error: Exception | None = None
    calls: tuple[FunctionCall, ...] = ()


def take_turn(
    host: "HeldModel", body: ChatBody, conversation: Conversation, view: View, status: Status
) -> Outcome:
    """Ask, show and keep one answer, with `status` below it.

    What the model or its process does wrong becomes part of the outcome; Ctrl-C makes the answer `stopped`.
    """
    progress = _Progress(view, status)
    state, error = DONE, None
    ours = host.client.is_host  # another server may refuse fields that it does not know
    request = body._replace(return_token_ids=ours, return_progress=ours)
    with Interrupts() as interrupts:
        try:
            with contextlib.closing(host.client.chat(request)) as stream:
                for delta in interrupts.each(stream):
                    progress.take(delta)
                    if delta.reasoning:
                        view.think(delta.reasoning)
                    if delta.text:
                        conversation.append_delta(delta.text)
                        view.feed(delta.text)
        except KeyboardInterrupt:
            state = STOPPED
        except SystemExit:  # SIGTERM or SIGHUP
            conversation.end(CUT)
            raise
        except Exception as caught:
            if not hasattr(caught, "exit_code"):
                conversation.end(CUT)
                raise
            state, error = (CUT if progress.n_pieces else FAILED), caught
        calls = progress.calls() if state == DONE else ()
        conversation.end(state, progress.token_ids if state == DONE and ours else (), calls)
        view.close()
    return Outcome(state, progress.stats(state), progress.n_dropped, error, calls)


class _Progress:
    """What the deltas of one answer say beside the text."""

    def __init__(self, view: View, status: Status) -> None:
        self.n_pieces = 0
        self.n_dropped = 0
        self.token_ids: tuple[int, ...] = ()
        self._view, self._status = view, status
        self._started = time.monotonic()
        self._first = self._last = self._shown = 0.0
        self._n_prompt = 0
        self._reason = ""
        self._accounts = Delta("")
        self._called: list[Delta] = []
        self._calling: tuple[str, ...] = ()  # the line that names the tool whose arguments come
        view.status(status(0.0, 0, 0))

    def take(self, delta: Delta) -> None:
        now = time.monotonic()
        self._reason = delta.finish_reason or self._reason
        self.token_ids = delta.token_ids or self.token_ids
        self.n_dropped = delta.dropped_messages or self.n_dropped
        if delta.usage:
            self._accounts = delta
        if delta.prompt_progress:
            self._n_prompt = delta.prompt_progress.total or 0
            self._view.status(_reading(delta.prompt_progress))
        if delta.calls:
            self._called.append(delta)
            self._calling = next(
                ((f"calling {visible(one.name):.80}",) for one in delta.calls if one.name), self._calling
            )
        if delta.text or delta.reasoning or delta.calls:
            self._first, self._last = self._first or now, now
            self.n_pieces += 1
            if now - self._shown >= STATUS_EVERY:
                self._shown = now
                self._view.status(*self._calling, self._status(self._rate, self._n_prompt, self.n_pieces))

    def calls(self) -> tuple[FunctionCall, ...]:
        """Return the tools to call; the calls of an answer that was cut off are not whole."""
        return () if self._reason == "length" else calls_of(self._called)

    def stats(self, state: str) -> TurnStats:
        """Return the statistics of an answer that ended in `state`; where the server sent none, what was seen of it."""
        to_first = self._first - self._started if self._first else 0.0
        if self._accounts.usage or state == DONE:
            return TurnStats.of(self._accounts, to_first, self._reason)
        return TurnStats(
            n_generated=self.n_pieces,
            seconds_to_first=to_first,
            decode_rate=self._rate,
            finish_reason=state,
        )

    @property
    def _rate(self) -> float:
        """Return tokens per second since the first one, as pieces of text."""
        return max(self.n_pieces - 1, 0) / max(self._last - self._first, 1e-3)


def _reading(at: PromptProgress) -> str:
    done, total = at.processed or 0, at.total or 0
    share = f" ({100 * done / total:.0f} %)" if total else ""
    return f"prefill {done:,} of {total:,} tokens{share}"
