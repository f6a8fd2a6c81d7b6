"""Find which special texts of a rendered conversation come from the template, if the template inspects message contents.

The contents are rendered again with a sentinel, a character that occurs nowhere else, at the special texts in them. If the text without
sentinels is the one of the plain contents, the sentinels tell: what they touch was written by a person.
"""

import re
from collections.abc import Callable, Sequence

BRACKET = re.compile(r"[\[\]<>|{}]")  # what special texts are made of; a text without any cannot spell one
Run = tuple[str, bool]  # a text, and whether it is the template's own


class Provenance:
    """Variants of texts to render, and what they tell; `special` finds special texts.

    The first `n_contents` texts are contents of messages. A template may compare the others, names and types of a tool's parameters, with
    words: those without a bracket stay as they are.
    """

    def __init__(
        self, contents: Sequence[str], special: re.Pattern[str] | None, n_contents: int | None = None
    ) -> None:
        self._contents, self._special = contents, special or re.compile(r"(?!)")
        self._n_contents = len(contents) if n_contents is None else n_contents
        used = set().union(*contents)
        unused = (
            chr(c) for c in (*range(0xF0000, 0xFFFFD), *range(0x100000, 0x10FFFD)) if chr(c) not in used
        )
        self._sentinel, self._end = next(unused), next(unused)
        self._remove = str.maketrans("", "", self._sentinel + self._end)
        s = self._sentinel
        self.variants = (
            self._with(lambda special: special[0] + s + special[1:]),  # the template cannot see them
            self._with(lambda special: s + special),
            self._with(lambda special: special + s),
        )

    def _with(self, marked: Callable[[str], str]) -> list[str]:
        return [
            self._ends(self._special.sub(lambda m: marked(m.group()), text))
            if i < self._n_contents or BRACKET.search(text)
            else text
            for i, text in enumerate(self._contents)
        ]

    def _ends(self, content: str) -> str:
        """Return another sentinel at both ends, within the white space: no special text is made of a content and what stands beside it."""
        inner = content.strip()
        if not inner:
            return content
        head, tail = content.split(inner, 1)
        return f"{head}{self._end}{inner}{self._end}{tail}"

    def own_text(self, real: str, rendered: Sequence[str | None], marked: str) -> list[Run]:
        """Split `real`, or its beginning, into runs; what cannot be told is a person's.

        `rendered` are the texts of the variants, None for those that were refused; `marked` is the text with placeholders.
        """
        for which, text in enumerate(rendered):
            if text is not None and text.translate(self._remove).startswith(real):
                return self._told(self._beginning(text, len(real)), which)
        return self._untold(real, marked)

    def _beginning(self, text: str, length: int) -> str:
        """Return the first `length` characters, sentinels not counted, with those after them."""
        at = 0
        while at < len(text) and (length or text[at] in (self._sentinel, self._end)):
            length -= text[at] not in (self._sentinel, self._end)
            at += 1
        return text[:at]

    def _told(self, text: str, which: int) -> list[Run]:
        def is_own(match: re.Match[str]) -> bool:
            before, after = (
                text[max(0, match.start() - 1) : match.start()],
                text[match.end() : match.end() + 1],
            )
            return which == 0 or (before if which == 1 else after) != self._sentinel

        runs = _runs(text, [match.span() for match in self._special.finditer(text) if is_own(match)])
        return [(run.translate(self._remove), own) for run, own in runs]

    def _untold(self, real: str, marked: str) -> list[Run]:
        spans = []
        for match in self._special.finditer(real):
            found = match.group()
            in_contents = any(found in content for content in self._contents)
            if not in_contents and real.count(found) <= marked.count(found):
                spans.append(match.span())
        return _runs(real, spans)


def _runs(text: str, own: Sequence[tuple[int, int]]) -> list[Run]:
    runs: list[Run] = []
    end = 0
    for start, stop in own:
        runs += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return [(run, is_own) for run, is_own in [*runs, (text[end:], False)] if run]
