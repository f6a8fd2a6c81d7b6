"""Split an answer into content, reasoning and tool calls while its tokens come."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mixcli.prompts.answer_syntax import ANALYSIS, CHANNEL_MARKS, MESSAGE, AnswerSyntax
from mixcli.prompts.detokenizer import overlap
from mixcli.prompts.tool_text import BEGIN_CALL, END_CALL

Kind = Literal["content", "reasoning", "call", "arguments"]

_HEAD = re.compile(r'\s*[\[,]?\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=[^\s])')
_WHITE = " \t\r\n"
MIN_CUT = 2  # characters of a mark that is cut off: a single "<" is more likely text
_BEGUN = '{"name":"'  # of a call


@dataclass(frozen=True)
class Segment:
    """A piece of an answer: text of its content or reasoning, the name of a tool that is called, or text of that call's arguments."""

    kind: Kind
    text: str
    index: int = 0  # of the call


def joined(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join neighbors of one kind, so that a step of many tokens has few segments."""
    found: list[Segment] = []
    for one in segments:
        last = found[-1] if found else None
        if last and one.kind != "call" and (last.kind, last.index) == (one.kind, one.index):
            found[-1] = replace(last, text=last.text + one.text)
        else:
            found.append(one)
    return tuple(found)


class AnswerParser:
    """Parses one answer.

    `expects_calls` says whether there are tools to call, without them a call is content; `in_reasoning` that the prompt has opened the
    reasoning.
    """

    def __init__(
        self, syntax: AnswerSyntax, *, expects_calls: bool = False, in_reasoning: bool = False
    ) -> None:
        self._syntax, self._marks = syntax, dict(syntax.marks)
        self._calls, self._n_calls = expects_calls, 0
        self._n_messages = 0  # of channels
        self._rest = ""
        self._depth, self._in_text, self._escaped = 0, False, False
        self._wrote = False  # anything but white space
        self._name = ""
        self._state: Callable[[], Iterator[Segment]] = self._reasoning if in_reasoning else self._content
        if syntax.has_channels and not in_reasoning:
            self._state = self._channel

    @property
    def in_reasoning(self) -> bool:
        """Return whether what comes next belongs to the reasoning."""
        return self._state == self._reasoning

    def marks(self, token: int) -> bool:
        """Return whether a token is a mark and has no text."""
        return token in self._marks

    def push(self, token: int, text: str) -> list[Segment]:
        """Return what this token completes; `text` is what it adds to the answer."""
        self._rest += text
        segments = list(self._read())
        if token in self._marks:
            segments += self._release()
            segments += self._marked(self._marks[token])
        return segments

    def flush(self, text: str = "", *, cut: bool = False) -> list[Segment]:
        """Return what was held back, at the end of the answer; of a call that was cut off before its arguments nothing is shown.

        An answer that is `cut` at its maximum length may end within a mark, whose beginning is not shown either.
        """
        self._rest += text
        segments = list(self._read())
        if self._state == self._object and _is_cut(self._rest):
            self._rest = ""
        if self._state == self._channel and not self._n_messages:  # a text without any channel
            self._rest, self._name, self._state = self._name, "", self._content
        if (
            cut
            and (n := max((overlap(self._rest, mark) for mark in self._next_marks()), default=0)) >= MIN_CUT
        ):
            self._rest = self._rest[:-n].rstrip(_WHITE)
        return [*segments, *self._release()]

    def _next_marks(self) -> list[str]:
        """Return the marks in text that may come in this state."""
        opened, closed = self._syntax.reasoning or ("", "")
        if self._state == self._reasoning:
            return [closed]
        if self._state != self._content:
            return []
        marks = [BEGIN_CALL] if self._calls and self._syntax.style == "tags" else []
        return [*marks, opened] if opened and not self._wrote else marks

    def _read(self) -> Iterator[Segment]:
        """Run the states until none of them takes any more text."""
        before: tuple[object, str] | None = None
        while before != (self._state, self._rest):
            before = self._state, self._rest
            yield from self._state()

    def _release(self) -> Iterator[Segment]:
        """Return what was held back because it could have begun a mark."""
        text, self._rest = self._rest, ""
        if self._state == self._reasoning:
            kind: Kind = "reasoning"
        elif self._state == self._content:
            kind = "content"
            text = text if text.strip(_WHITE) or (self._wrote and not self._n_calls) else ""
        elif self._state == self._object:  # the text is not a call
            kind = "content"
            text = text if text.strip(f"{_WHITE},]") else ""
        else:
            return
        if text:
            yield Segment(kind, text)

    def _marked(self, mark: str) -> Iterator[Segment]:
        reasoning = self._syntax.reasoning or ("", "")
        if self._syntax.has_channels and mark in CHANNEL_MARKS:
            is_analysis = self._name.strip().startswith(ANALYSIS)
            self._n_messages += mark == MESSAGE
            self._name, self._state = "", self._channel
            if mark == MESSAGE:
                self._state = self._reasoning if is_analysis else self._content
        elif mark == reasoning[0]:
            self._state = self._reasoning
        elif mark == reasoning[1]:
            self._state = self._content
        elif not self._calls:
            yield Segment("content", mark)
        elif mark == "[ARGS]":
            yield from self._called(self._name)
            self._state = self._arguments
        elif mark == "[CALL_ID]":
            self._state = self._id
        elif mark == END_CALL:
            self._state = self._content
        elif self._syntax.style == "tokens":
            self._name, self._state = "", self._called_name
        else:
            self._state = self._object

    # the states, each of which takes what it can from the rest

    def _content(self) -> Iterator[Segment]:
        """Read up to a text that begins a call, or reasoning; white space waits, as before one it is not content."""
        opened = (self._syntax.reasoning or ("", ""))[0]
        marks = [BEGIN_CALL] if self._calls and self._syntax.style == "tags" else []
        if (
            opened
            and not self._wrote
            and self._rest.lstrip(_WHITE).startswith(opened[: len(self._rest.strip(_WHITE))])
        ):
            marks = [opened]
        at, mark = min(((at, one) for one in marks if (at := self._rest.find(one)) >= 0), default=(-1, ""))
        end = at if mark else len(self._rest) - max((overlap(self._rest, one) for one in marks), default=0)
        text = self._rest[:end].rstrip(_WHITE) if marks else self._rest[:end]
        self._rest = self._rest[at + len(mark) :] if mark else self._rest[len(text) :]
        if text:
            self._wrote = self._wrote or bool(text.strip(_WHITE))
            yield Segment("content", text)
        if mark:
            self._state = self._reasoning if mark == opened else self._object

    def _reasoning(self) -> Iterator[Segment]:
        closed = (self._syntax.reasoning or ("", ""))[1]
        at = self._rest.find(closed)
        keep = overlap(self._rest, closed) if at < 0 else 0
        text = self._rest[:at] if at >= 0 else self._rest[: len(self._rest) - keep]
        self._rest = self._rest[at + len(closed) :] if at >= 0 else self._rest[len(self._rest) - keep :]
        if text:
            yield Segment("reasoning", text)
        if at >= 0:
            self._state = self._content

    def _object(self) -> Iterator[Segment]:
        """Read what comes before the arguments of a call that is a JSON object."""
        if match := _HEAD.match(self._rest):
            self._rest = self._rest[match.end() :]
            yield from self._called(json.loads(match[1]))
            self._depth, self._state = 0, self._value
        elif self._syntax.style == "tags" and (at := self._rest.find(END_CALL)) >= 0:
            if text := self._rest[:at].strip(_WHITE):  # is not a call
                yield Segment("content", text)
            self._rest, self._state = self._rest[at + len(END_CALL) :], self._content

    def _value(self) -> Iterator[Segment]:
        """Read the arguments of such a call, up to the end of the JSON value."""
        for at, sign in enumerate(self._rest):
            if self._escaped:
                self._escaped = False
            elif self._in_text:
                self._escaped, self._in_text = sign == "\\", sign != '"'
            elif sign == '"':
                self._in_text = True
            elif sign in "[{":
                self._depth += 1
            elif sign in "]}":
                self._depth -= 1
                if not self._depth:
                    yield from self._argued(self._rest[: at + 1])
                    self._rest, self._state = self._rest[at + 1 :], self._behind
                    return
        yield from self._argued(self._rest)
        self._rest = ""

    def _behind(self) -> Iterator[Segment]:
        """After the arguments: read an id, and the end of the object."""
        at = self._rest.find("}")
        self._rest = self._rest[at + 1 :] if at >= 0 else ""
        if at >= 0:
            self._state = self._object
        yield from ()

    def _channel(self) -> Iterator[Segment]:
        """Read, between messages, who writes and the name of the channel."""
        return self._called_name()

    def _called_name(self) -> Iterator[Segment]:
        self._name, self._rest = self._name + self._rest, ""
        yield from ()

    def _id(self) -> Iterator[Segment]:
        self._rest = ""
        yield from ()

    def _arguments(self) -> Iterator[Segment]:
        yield from self._argued(self._rest)
        self._rest = ""

    def _called(self, name: str) -> Iterator[Segment]:
        self._n_calls += 1
        yield Segment("call", name.strip(), self._n_calls - 1)

    def _argued(self, text: str) -> Iterator[Segment]:
        if text:
            yield Segment("arguments", text, self._n_calls - 1)


def _is_cut(text: str) -> bool:
    """Return whether a text is the first part of a call, or of the mark after one."""
    begun = "".join(text.split()).lstrip(",[]")
    return begun.startswith(_BEGUN) or _BEGUN.startswith(begun) or END_CALL.startswith(begun)
