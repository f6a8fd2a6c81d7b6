"""Draw a run with characters: for each test a bar up to what was reached, in the frame of what its devices allow."""

from mixcli.insight.bench_record import BenchRun

FULL, EMPTY, BEFORE = "█", "░", "▌"
MIN_BAR, MAX_BAR = 10, 50


def drawn(run: BenchRun, width: int, against: BenchRun | None = None) -> list[str]:
    """Return a line for each test at most `width` columns wide; a mark in a bar is the median of an earlier run.

    The whole bar is the roof of the test, or the fastest test of its kind where no roof is known.
    """
    labels = [one.test.words for one in run.results]
    before = {one.test: one.median for one in against.results} if against else {}
    fastest = {
        kind: max(one.median for one in run.results if one.test.kind == kind)
        for kind in {one.test.kind for one in run.results}
    }
    rates = [
        f"{one.median:,.1f}" + (f" of {one.roof:,.1f}" if one.roof else "") + " tok/s" for one in run.results
    ]
    label = max(map(len, labels))
    room = max(MIN_BAR, min(MAX_BAR, width - label - max(map(len, rates)) - 2))
    lines = []
    for words, rate, one in zip(labels, rates, run.results, strict=True):
        whole = one.roof or fastest[one.test.kind]
        n = _cells(one.median, whole, room)
        bar = list(FULL * n + (EMPTY if one.roof else " ") * (room - n))
        if one.test in before:
            bar[max(0, _cells(before[one.test], whole, room) - 1)] = BEFORE
        lines.append(f"{words:<{label}} {''.join(bar)} {rate}")
    return lines


def _cells(rate: float, whole: float, room: int) -> int:
    return min(room, round(room * rate / whole))
