"""The types of all options and arguments: click's, with limits that every program behind them can hold, and the nearest name for a typo."""

import math
import os
from collections.abc import Callable
from typing import Any

import click

from mixcli.system.text import clean, missing, nearest


def as_text(command: click.Command) -> None:
    """Decode every text parameter of a command as valid text, whatever its bytes; paths keep their bytes."""
    for parameter in command.params:
        if type(parameter.type) is click.types.StringParamType:
            parameter.type = TEXT
        elif type(parameter.type) in _TYPES:
            parameter.type = _TYPES[type(parameter.type)](parameter.type)
    if isinstance(command, click.Group):
        for one in command.commands.values():
            as_text(one)


class _Text(click.types.StringParamType):
    """Text whose bytes that are not UTF-8 have become U+FFFD."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text: str = super().convert(value, param, ctx)
        if text.isascii() or clean(text) == text:
            return text
        from mixcli.system.stdin import said

        return said(
            text,
            param.human_readable_name
            if isinstance(param, click.Argument)
            else max(param.opts, key=len)
            if param
            else "the command line",
        )


class _Whole(click.IntRange):
    """A whole number that every program behind it can hold."""

    def __init__(self, of: click.IntRange) -> None:
        super().__init__(of.min, of.max, of.min_open, of.max_open, of.clamp)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        least, most = (
            -MAX_WHOLE if self.min is None else self.min,
            MAX_WHOLE if self.max is None else self.max,
        )
        try:
            number = super().convert(_brief(value), param, ctx)
        except click.BadParameter:
            number = None
        if number is None or not least <= number <= most:
            self.fail(f"{_brief(str(value))!r} is not a whole number from {least:,} to {most:,}", param, ctx)
        return number


class _Real(click.FloatRange):
    """A number that is one: neither nan nor infinite."""

    def __init__(self, of: click.FloatRange) -> None:
        super().__init__(of.min, of.max, of.min_open, of.max_open, of.clamp)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = super().convert(_brief(value), param, ctx)
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{_brief(str(value))!r} is not a number{self._limits()}", param, ctx)
        return number

    def _limits(self) -> str:
        """Return the range in words: " from 0 to 1", " above 0 and at most 1", " of at least 0.01"; empty for all numbers."""
        least = "" if self.min is None else f" {'above' if self.min_open else 'from'} {self.min:g}"
        if self.max is None:
            return f" of at least {self.min:g}" if least and not self.min_open else least
        if self.max_open or self.min_open:
            most = f"{'below' if self.max_open else 'at most'} {self.max:g}"
            return f"{least} and {most}" if least else f" {most}"
        return f"{least} to {self.max:g}"


class _Choice(click.Choice):  # type: ignore[type-arg, unused-ignore]
    """One of some words, with the nearest one for a typo."""

    def __init__(self, of: Any) -> None:
        super().__init__(of.choices, of.case_sensitive)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = nearest(str(value), map(str, self.choices))
            hint = f"; did you mean {near}?" if near else ""
            self.fail(f"{error.message.removesuffix('.')}{hint}", param, ctx)


class _Path(click.Path):  # type: ignore[type-arg, unused-ignore]
    """A path; for one that must exist and does not, the error suggests the nearest name."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        vars(self).update(vars(of))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self.exists and not (self.allow_dash and os.fspath(value) == "-") and not os.path.lexists(value):
            self.fail(missing(value), param, ctx)
        return super().convert(value, param, ctx)


def _brief(value: Any) -> Any:
    """Return the typed value; cut off after 40 characters, which makes a very long number invalid."""
    return f"{value[:40]}…" if isinstance(value, str) and len(value) > 40 else value


MAX_WHOLE = 2**32 - 1  # of tokens, seeds, threads
_TYPES: dict[type, Callable[[Any], click.ParamType]] = {  # type: ignore[type-arg, unused-ignore]
    click.IntRange: _Whole,
    click.FloatRange: _Real,
    click.Choice: _Choice,
    click.Path: _Path,
}
TEXT = _Text()

__all__ = ["as_text"]
