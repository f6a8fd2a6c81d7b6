"""Score the fields of a JSON answer that was just written.

A field whose schema lists its values (closed_values.py) gets the probability of each of them after what the answer has before it, token
for token: the values are labels below the prompt, each after the beginning of the answer, so that the one tree of labels.py scores the
fields of an answer together. What all values of a field begin with cancels out. As with other labels, the end of a value is a part of it
where another value begins with it. Any other field gets the product of the probabilities of the tokens in which it was written.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import exp

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.closed_values import ClosedValues
from mixcli.engine.labels import LabelScores, TokenIds, normalized
from mixcli.llama.model import Vocab
from mixcli.request.json_fields import JsonField, json_fields, path_name, value_text

MAX_LABELS = 1024  # values of all fields of one answer; of those that are more, the fields count as open
_CLOSING = {True: b'"', False: b",}]"}  # what ends a text, or a value without quotes


@dataclass(frozen=True)
class FieldForm:
    """The schema of an answer whose fields are to be scored, as JSON, and what splits a text that continues another one into tokens."""

    schema: str
    encode: Callable[[str], list[int]]


@dataclass(frozen=True)
class WrittenToken:
    """A token of an answer and the log-probability that it had among those that the schema allowed."""

    token: int
    logprob: float


@dataclass(frozen=True)
class FieldProbability:
    """The probability of a field as it was written.

    Exact where `values` has all that it could be; else the product over the `n_tokens` tokens in which it was written.
    """

    name: str
    probability: float
    values: tuple[tuple[str, float], ...] = ()
    n_tokens: int = 0


@dataclass(frozen=True)
class _Closed:
    """A field with listed values: the tokens of an answer up to each of them, `n_before` of which are those of the answer, and what ends each."""

    field: JsonField
    values: tuple[object, ...]
    n_before: int
    labels: tuple[tuple[int, ...], ...]
    ends: tuple[TokenIds, ...]

    @property
    def longest(self) -> int:
        return max(map(len, self.labels))


class FieldScores:
    """The fields of one answer, whose content begins after the first `n_thought` tokens.

    `scores` are what must be computed for fields with listed values, None where there are none; their labels continue the first `n_kept`
    tokens of the answer. `n_room` tokens fit after the prompt.
    """

    def __init__(
        self,
        written: Sequence[WrittenToken],
        n_thought: int,
        form: FieldForm,
        vocab: Vocab,
        ends: "FieldEnds",
        n_room: int,
    ) -> None:
        self._answer = _Answer(written, n_thought, form.encode, vocab)
        closed_values = ClosedValues(json.loads(form.schema))
        self._fields: list[JsonField | _Closed] = []
        labels: list[tuple[int, ...]] = []
        ends_of: list[TokenIds] = []
        n_left = MAX_LABELS
        for field in self._answer.fields:
            values, closed = closed_values.of(field.path), None
            if values and len(values) <= n_left:  # before they are split into tokens
                closed = self._closed(field, values, ends)
                n_left -= len(values)
            if closed is None or closed.longest > n_room:
                self._fields.append(field)
            else:
                self._fields.append(closed)
                labels += closed.labels
                ends_of += closed.ends
        self.n_kept = min((one.n_before for one in self._fields if isinstance(one, _Closed)), default=0)
        below = [label[self.n_kept :] for label in labels]
        self.scores = LabelScores(below, (), ends_of) if labels else None

    def results(self) -> tuple[FieldProbability, ...]:
        """Return the fields in their order, once the scores are complete."""
        sums = np.zeros(0) if self.scores is None else self.scores.log_probabilities()
        first, found = 0, []
        for one in self._fields:
            if isinstance(one, JsonField):
                found.append(self._answer.product(one))
            else:
                found.append(_exact(one, sums[first : first + len(one.labels)]))
                first += len(one.labels)
        return tuple(found)

    def _closed(self, field: JsonField, values: Sequence[object], ends: "FieldEnds") -> _Closed | None:
        """Return a field with the tokens of its values; None where these do not tell the values apart, or it was written as none of them."""
        if not any(_same(value, field.value) for value in values):
            return None
        n_before = self._answer.n_before(field, values)
        labels = self._answer.labels(field, values, n_before)
        if labels is None or len(set(labels)) < len(labels):
            return None
        ordered = sorted(labels)
        is_open = {one for one, after in pairwise(ordered) if after[: len(one)] == one}
        ends_of = tuple(
            ends.of(value, is_part=bool(field.path)) if label in is_open else ends.none
            for value, label in zip(values, labels, strict=True)
        )
        return _Closed(field, tuple(values), n_before, labels, ends_of)


class FieldEnds:
    """The tokens that end a value in a JSON text: those that begin with its closing quote, or with what follows a value without quotes."""

    none: TokenIds = np.zeros(0, np.int64)

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._known: dict[bytes, TokenIds] = {}

    def of(self, value: object, *, is_part: bool) -> TokenIds:
        """Return the tokens after a value; `is_part` is false where the value is the whole answer."""
        signs = _CLOSING[isinstance(value, str)] if is_part or isinstance(value, str) else b""
        if signs not in self._known:
            found = (
                [
                    token
                    for token in range(self._vocab.n_tokens)
                    if (piece := self._vocab.piece(token)) and piece[0] in signs
                ]
                if signs
                else self._vocab.ends
            )
            self._known[signs] = np.array(found, np.int64)
        return self._known[signs]


class _Answer:
    """The tokens of an answer and the fields in its text; none where it is not JSON."""

    def __init__(
        self,
        written: Sequence[WrittenToken],
        n_thought: int,
        encode: Callable[[str], list[int]],
        vocab: Vocab,
    ) -> None:
        self._written, self._encode = written, encode
        self._encoded: dict[str, tuple[int, ...]] = {}  # the fields of a list have the same values
        pieces = [vocab.piece(one.token) for one in written]
        marks = [i + 1 for i, piece in enumerate(pieces) if not piece]  # a control token opens the content
        n_before = max([n_thought, *marks])
        pieces[:n_before] = [b""] * n_before
        self._bytes = b"".join(pieces)
        self._starts = [0, *accumulate(map(len, pieces))]  # of each token, and the end
        try:
            text = self._bytes.decode()
            self.fields = json_fields(text)
        except ValueError:  # cut off
            text, self.fields = "", []
        self._text = text

    def n_before(self, field: JsonField, values: Sequence[object]) -> int:
        """Return how many tokens of the answer none of a field's values would change: up to an opening quote, where all have one."""
        begin, _ = self._span(field)
        return bisect_right(self._starts, begin + all(isinstance(value, str) for value in values)) - 1

    def labels(
        self, field: JsonField, values: Sequence[object], n_before: int
    ) -> tuple[tuple[int, ...], ...] | None:
        """Return the tokens of an answer that has each of these values at a field's place, up to the value's end or its closing quote."""
        begin, _ = self._span(field)
        kept = self._starts[n_before]
        try:
            lead = self._bytes[kept:begin].decode()
        except UnicodeDecodeError:
            return None
        before = tuple(one.token for one in self._written[:n_before])
        found = []
        for value in values:
            text = json.dumps(value, ensure_ascii=False)
            text = text[:-1] if isinstance(value, str) else text
            rest = lead + text if kept <= begin else text[1:]
            if rest not in self._encoded:
                self._encoded[rest] = tuple(self._encode(rest))
            found.append((*before, *self._encoded[rest]))
        return tuple(found)

    def product(self, field: JsonField) -> FieldProbability:
        """Return the product over the tokens that a field takes; of a text with its closing quote, without the opening one."""
        begin, end = self._span(field)
        begin += isinstance(field.value, str)
        first, after = bisect_right(self._starts, begin) - 1, bisect_left(self._starts, end)
        taken = [one.logprob for one in self._written[first:after]]
        return FieldProbability(path_name(field.path), exp(sum(taken)), n_tokens=len(taken))

    def _span(self, field: JsonField) -> tuple[int, int]:
        """Return where a field begins and ends, in bytes."""
        begin = len(self._text[: field.begin].encode())
        return begin, begin + len(self._text[field.begin : field.end].encode())


def _exact(one: _Closed, log_probabilities: NDArray[np.float64]) -> FieldProbability:
    probabilities = normalized(log_probabilities)
    written = next(i for i, value in enumerate(one.values) if _same(value, one.field.value))
    names = [value_text(value) for value in one.values]
    if len(set(names)) < len(names):  # "1" and 1
        names = [json.dumps(value, ensure_ascii=False) for value in one.values]
    return FieldProbability(
        path_name(one.field.path), probabilities[written], tuple(zip(names, probabilities, strict=True))
    )


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other
