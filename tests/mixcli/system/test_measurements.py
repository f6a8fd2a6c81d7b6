"""Orders and answers of measuring processes are read as they were written."""

from pathlib import Path

import pytest

from mixcli.system.measurements import (
    Comparison,
    ProbeAnswer,
    ProbeOrder,
    ProductLine,
    ProductOrder,
)
from profiles.placement import Placement

RECORDS = (
    ProbeOrder(Path("/m/a.gguf"), Placement(512), {"host": {"kv": 1}}, 8, 4, (1, 2), (3, 4)),
    ProbeOrder(Path("/m/a.gguf"), Placement(512)),
    ProbeAnswer((Comparison("host", (("kv", 1, 2),)),), ("a note",), 1.5, 0.5, {1: 2.0, 8: 16.0}, (0.25,)),
    ProbeAnswer(()),
    ProductOrder(("Q4_K", "attention"), 4, 14336, 1 << 29),
    ProductLine("Q4_K", True, None, False),
    ProductLine("attention", False, [0.5, 0.25], True),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written(
    record: ProbeOrder | ProbeAnswer | ProductOrder | ProductLine,
) -> None:
    text = record.to_json()
    assert "\n" not in text
    assert type(record).from_json(text) == record


@pytest.mark.parametrize("text", ['{"type": "Q4_K", "sec', "[]", '{"type": "Q4_K"}', "7"])
def test_a_line_that_was_cut_is_none(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        ProductLine.from_json(text)


def test_a_difference_is_a_share_of_the_plan() -> None:
    one = Comparison("CUDA0", (("weights", 100 << 20, 101 << 20), ("kv", 100 << 20, 100 << 20)))
    assert (one.planned, one.real, one.off) == (200 << 20, 201 << 20, pytest.approx(0.005))
