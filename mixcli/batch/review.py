"""The review list: records with an answer that is not certain enough, the most doubtful first."""

import os
import tempfile
from collections.abc import Mapping

from mixcli.batch.graded import Graded
from mixcli.batch.output import Write, json_line
from mixcli.batch.record import Record


class Review:
    """Collects doubtful records in an unnamed temporary file, and writes them in order at the end.

    In memory are two numbers a record: its doubt, 1 less the least probability of what was abstained from, and where its line is.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115
        self._found: list[tuple[float, int, int]] = []  # doubt, the record's place, the offset of its line

    @property
    def n(self) -> int:
        return len(self._found)

    def add(self, place: int, record: Record, graded: Mapping[str, Graded]) -> None:
        """Take a record where something was abstained from."""
        low = {name: one for name, one in graded.items() if one.is_abstained}
        if not low:
            return
        doubt = 1 - min(one.probability.value for one in low.values() if one.probability is not None)
        line = json_line(
            {
                "id": record.id,
                "doubt": doubt,
                "abstained": {name: _told(one) for name, one in low.items()},
                "record": {**record.fields, **record.nested},
            }
        )
        self._found.append((doubt, place, self._lines.seek(0, os.SEEK_END)))
        self._lines.write(line.encode())

    def finish(self) -> None:
        """Write the list."""
        with self._lines:
            for _, _, offset in sorted(self._found, key=lambda one: (-one[0], one[1])):
                self._lines.seek(offset)
                self._write(self._lines.readline().decode())


def _told(one: Graded) -> dict[str, object]:
    found = one.probability
    return {"value": one.value, **(found.to_json() if found is not None else {}), "threshold": one.threshold}
