"""The messages between a host, or another server, and its clients; JSON becomes one of these where it is read.

Servers other than ours leave fields out, add some, and write some in another type: `counts_in` keeps those in `extra`, and `to_json` writes them back.
Most records here are named tuples: every command that asks something makes these types at its start, and a dataclass takes six times as long to make.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mixcli.request.output_format import OutputFormat
    from mixcli.request.prompt import ChatTurn

Fields = Mapping[str, object]  # of a JSON object, by name, where they are only handed on


NONE: Mapping[str, float] = {}
NO_FIELDS: Fields = {}
MAX_NUMBER = 1e15  # of tokens, milliseconds, tokens per second


def object_of(value: object) -> Fields:
    """Return a JSON object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def count_in(value: object) -> int:
    """Return a count, or 0 for any other value."""
    return value if isinstance(value, int) and _is_number(value) else 0


def number_in(value: object) -> float | None:
    """Return a number, or None for any other value."""
    return float(value) if isinstance(value, int | float) and _is_number(value) else None


def whole_in(value: object) -> int | None:
    """Return a whole number, or None for any other value."""
    return value if isinstance(value, int) and _is_number(value) else None


def _is_number(value: object) -> bool:
    """Return whether a value counts or measures something; another server may send any number, or NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_NUMBER


class TokenUsage(NamedTuple):
    """The token counts of an answer, by OpenAI's names; `extra` holds the details."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    extra: Fields = NO_FIELDS

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; empty where nothing was said."""
        return _object_of(self)

    @property
    def cached_tokens(self) -> int:
        """Return how many tokens of the prompt were not computed again."""
        return count_in(object_of(self.extra.get("prompt_tokens_details")).get("cached_tokens"))


class Timings(NamedTuple):
    """The times of an answer as llama-server writes them: milliseconds, and tokens per second."""

    cache_n: int | None = None
    prompt_n: int | None = None
    prompt_ms: float | None = None
    prompt_per_second: float | None = None
    predicted_n: int | None = None
    predicted_ms: float | None = None
    predicted_per_second: float | None = None
    draft_n: int | None = None
    draft_n_accepted: int | None = None
    extra: Fields = NO_FIELDS

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; empty where nothing was said."""
        return _object_of(self)


class PromptProgress(NamedTuple):
    """How far a prompt has been read, as llama-server writes it: tokens, and milliseconds."""

    total: int | None = None
    cache: int | None = None
    processed: int | None = None
    time_ms: float | None = None
    extra: Fields = NO_FIELDS

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; empty where nothing was said."""
        return _object_of(self)


Counts = TypeVar("Counts", TokenUsage, Timings, PromptProgress)


def counts_in(kind: type[Counts], value: object) -> Counts:
    """Read a JSON object: its numbers by name, and as `extra` what is left; any other value has none."""
    numbers: dict[str, Any] = {}
    extra: dict[str, object] = {}
    for name, one in object_of(value).items():
        good = name in kind._fields and name != "extra" and _is_number(one)
        (numbers if good else extra)[name] = one
    return kind(**numbers, extra=extra)


def _object_of(counts: Counts) -> dict[str, object]:
    """Return the JSON object that `counts_in` read, without what was left out."""
    numbers = {name: one for name, one in counts._asdict().items() if name != "extra" and one is not None}
    return {**numbers, **counts.extra}


@dataclass(frozen=True)
class CallDelta:
    """A piece of a tool call: the first of each `index` has its id and name; `arguments` come piece by piece."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(NamedTuple):
    """A piece of an answer, and of the `reasoning` before it; `finish_reason`, `usage`, `timings`, `token_ids` and `label_probs` come with the last ones.

    While a long prompt is read, deltas without text bring `prompt_progress`; `dropped_messages` counts what was left out so that the
    conversation fits into the context.
    """

    text: str
    finish_reason: str | None = None
    usage: TokenUsage | None = None
    timings: Timings | None = None
    token_ids: tuple[int, ...] = ()
    prompt_progress: PromptProgress | None = None
    dropped_messages: int = 0
    label_probs: Mapping[str, float] = NONE
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


class ChatBody(NamedTuple):
    """The body of a chat completion request.

    `options` are sampling parameters and switches by their names on the wire; `form` is what the answer must look like; `park` tells a
    host whether to keep the computed conversation. `whole` is a request that was written elsewhere: its fields precede all but `park`.
    """

    messages: "tuple[ChatTurn, ...]" = ()
    options: Fields = NO_FIELDS
    form: "OutputFormat | None" = None
    park: bool | None = None
    return_token_ids: bool = False
    return_progress: bool = False
    whole: Fields = NO_FIELDS

    @property
    def max_tokens(self) -> int | None:
        """Return the maximum length of the answer; None where the body does not have one."""
        limit = self.whole.get("max_tokens", self.options.get("max_tokens"))
        return limit if isinstance(limit, int) else None

    def to_json(self) -> dict[str, object]:
        """Return the JSON object; what was not chosen is left out."""
        body: dict[str, object] = {**self.options, **(self.form.body() if self.form else {})}
        if self.messages:
            body["messages"] = [one.to_json() for one in self.messages]
        if self.return_token_ids:
            body["return_token_ids"] = True
        if self.return_progress:
            body["return_progress"] = True
        body |= self.whole
        return body if self.park is None else {**body, "park": self.park}
