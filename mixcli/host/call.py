"""One request on its way through the host: its options, and the queue of its outputs."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output
from mixcli.prompts.answer_parser import Segment, joined
from mixcli.prompts.context_overflow import Policy
from mixcli.prompts.messages import NO_TOOLS, Message, PromptOptions, ToolUse
from mixcli.prompts.raw_prompt import RawPrompt


class SharedPrompt:
    """The token ids of one prompt, made once for all answers to it, and how many of its messages were left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: tuple[object, object] | None = None
        self._made: tuple[Sequence[int], int] = ((), 0)

    def get(
        self, question: "ChatQuestion", make: Callable[[], tuple[Sequence[int], int]]
    ) -> tuple[Sequence[int], int]:
        """Return what `make` makes, or has made for another answer to the same messages or text."""
        with self._lock:
            if self._of is None or self._of[0] is not question.messages or self._of[1] is not question.raw:
                self._made = make()
                self._of = question.messages, question.raw
            return self._made


@dataclass(frozen=True)
class ChatQuestion:
    """A conversation and the options for its next turn; see engine.sequence.Request for the fields that are passed on.

    With `raw` there is no conversation: the model continues that.
    """

    messages: tuple[Message, ...]
    sampling: SamplingParams
    raw: RawPrompt | None = None
    constraint: ConstraintSpec | None = None
    choices: tuple[str, ...] = ()
    top_logprobs: int | None = None
    speculate: bool = False
    park: bool = True
    persist: bool = False
    deterministic: bool = False
    field_probs: bool = False
    on_overflow: Policy = "error"
    tool_use: ToolUse = NO_TOOLS
    reasoning_effort: str | None = None
    is_default_effort: bool = False
    thinking: bool | None = None
    thinking_budget: int | None = None  # tokens of reasoning
    shared_prompt: SharedPrompt = field(default_factory=SharedPrompt, compare=False, repr=False)

    @property
    def prompt_options(self) -> PromptOptions:
        """Return what the prompt has beside the messages."""
        return PromptOptions(
            self.tool_use.tools, self.reasoning_effort, self.thinking, self.is_default_effort
        )

    @property
    def n_characters(self) -> int:
        """Return the length of all texts that must be split into tokens."""
        n_raw = self.raw.n_characters if self.raw else 0
        n_raw += self.prompt_options.n_characters
        return n_raw + sum(map(len, self.choices)) + sum(one.n_characters for one in self.messages)

    @property
    def continues_text(self) -> bool:
        """Return whether the answer continues a text, and does not begin one."""
        return self.raw is not None or bool(self.messages and self.messages[-1].role == "assistant")


Item = Output | BaseException


@dataclass
class Call:
    """A question with a name; outputs arrive in `items`, an exception ends them.

    `n_prompt` counts the tokens of the prompt, `n_dropped` the messages that had to be left out; both are set before the first output. `outputs` are what came so far, whole
    before the last one is handed over; of a call `as_whole` only that one is. `gone` says that it was aborted before the engine had it. All calls of a process wait in the same `loop`,
    those of one request at the same `items`, where `index` tells them apart; None when the request has ended.
    """

    id: str
    question: ChatQuestion
    loop: asyncio.AbstractEventLoop
    as_whole: bool = False
    index: int = 0
    n_prompt: int = 0
    n_dropped: int = 0
    gone: bool = False
    outputs: list[Output] = field(default_factory=list)
    items: "asyncio.Queue[tuple[Call, Item]] | None" = None

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Return what came so far, split into content, reasoning and calls."""
        return joined([one for output in self.outputs for one in output.segments])

    @property
    def token_ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.token_ids]


def deliver(items: Sequence[tuple[Call, Item]]) -> None:
    """Hand outputs to the handlers that wait for them, from the engine's thread; their loop, which shares our cores, is woken once for all.

    If the loop is closed, no handler waits any more.
    """
    if items:
        with contextlib.suppress(RuntimeError):
            items[0][0].loop.call_soon_threadsafe(_put, items)


def _put(items: Sequence[tuple[Call, Item]]) -> None:
    for call, item in items:
        if call.items is not None:
            call.items.put_nowait((call, item))
