"""Help for terminals that have no room for two columns: a long option stands above its text."""

from collections.abc import Iterable

import click


class NarrowFormatter(click.HelpFormatter):
    """Click's formatter, with a first column of a third of the width at most."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(list(rows), min(col_max, self.width // 3), col_spacing)


__all__ = ["NarrowFormatter"]
