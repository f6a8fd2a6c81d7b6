"""One question on its way through the host: what is asked, and the queue in which the answer arrives."""

import asyncio
from dataclasses import dataclass, field

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.formats import Message
from mixcli.engine.overflow import Policy
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output


@dataclass(frozen=True)
class Question:
    """A conversation and how its next turn shall be written; see engine.sequence.Request for the fields that are passed on."""

    messages: tuple[Message, ...]
    sampling: SamplingParams
    constraint: ConstraintSpec | None = None
    choices: tuple[str, ...] = ()
    top_logprobs: int | None = None
    speculate: bool = False
    park: bool = True
    persist: bool = False
    on_overflow: Policy = "error"


Item = Output | BaseException


@dataclass
class Call:
    """A question with a name; outputs arrive in `items`, an exception ends them.

    `n_dropped` counts the messages that had to be left out; it is set before the first output. `texts` and `token_ids` are what
    came so far, whole before the last output is handed over.
    """

    id: str
    question: Question
    loop: asyncio.AbstractEventLoop
    n_dropped: int = 0
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    items: "asyncio.Queue[Item]" = field(default_factory=asyncio.Queue)

    def put(self, item: Item) -> None:
        """Hand an output to the waiting handler, from the engine's thread."""
        self.loop.call_soon_threadsafe(self.items.put_nowait, item)
