"""Parts that the sections of docs/benchmarks.md share: tables of promises, machines, numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.estimate import QUIET, Finding, Rounds, Verdict, most_others

Facts = Mapping[str, str | int]  # of a machine, as bench.report.machine returns them


@dataclass(frozen=True)
class Row:
    """A promise in the table of all: the section that it stands in, what was measured of it, and the machine."""

    section: str
    finding: Finding
    machine: Facts


@dataclass
class Machines:
    """The machines of a page, each with a short name that stands beside its figures."""

    keys: dict[str, str] = field(default_factory=dict)

    def key(self, facts: Facts) -> str:
        """Return the short name of a machine with its system, versions and day."""
        return self.keys.setdefault(machine_words(facts), f"M{len(self.keys) + 1}")

    def legend(self) -> list[str]:
        """Return the table of what each short name stands for."""
        lines = ["| | machine, kernel, versions, date |", "|---|---|"]
        return [*lines, *(f"| {key} | {words} |" for words, key in self.keys.items()), ""]


def machine_words(facts: Facts) -> str:
    """Return a machine in words, with the versions of what was measured there."""
    if "card" in facts:
        return f"{facts['card']}, {facts['date']}"
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, llama-cpp-python {facts['llama-cpp-python']}, "
        f"numba {facts['numba']}, {facts['date']}"
    )


def promise_table(findings: Sequence[Finding], key: str) -> list[str]:
    """Return the promises of one table of figures, which were all measured on the machine of that short name."""
    lines = [
        "| promise | measured | interval | pairs | promised | verdict | others | on |",
        "|---|--:|--:|--:|--:|---|--:|---|",
    ]
    lines += [f"| {one.what} | {_cells(one)} | {one.words} | {_others(one)} | {key} |" for one in findings]
    return [*lines, ""]


def summary(rows: Sequence[Row], machines: Machines) -> list[str]:
    """Return how many promises there are of each verdict, and a table of all that have it."""
    counts = Counter(row.finding.verdict for row in rows)
    n_without = sum(row.finding.estimate.ends is None for row in rows)
    without = f" Without interval: {n_without} (older results, or measured once)." if n_without else ""
    n_disturbed = sum(row.finding.estimate.is_disturbed for row in rows)
    disturbed = f" Open because other programs ran meanwhile: {n_disturbed}." if n_disturbed else ""
    shown = [f"{counts[one]} {one}" for one in Verdict if counts[one] or one != Verdict.NOT_MEASURED]
    lines = [f"{len(rows)} promises: {', '.join(shown)}.{without}{disturbed}", ""]
    for verdict in Verdict:
        if counts[verdict]:
            lines += [
                f"### {verdict.capitalize()}",
                "",
                "| of | promise | measured | interval | pairs | promised | others | on |",
                "|---|---|--:|--:|--:|--:|--:|---|",
            ]
            lines += [
                f"| {row.section} | {row.finding.what} | {_cells(row.finding)} | {_others(row.finding)} | {machines.key(row.machine)} |"
                for row in rows
                if row.finding.verdict == verdict
            ]
            lines.append("")
    return lines


def _cells(one: Finding) -> str:
    """Return measured, interval, pairs and promised as cells."""
    measured, promised = one.number(one.estimate.value), one.number(one.limit)
    return f"{measured}{one.unit} | {one.interval} | {one.estimate.n_pairs} | {one.sign} {promised}{one.unit}"


def _others(one: Finding) -> str:
    return "" if one.others is None else f"{one.others:.0%}"


def measured_numbers(rounds: Rounds) -> dict[str, None]:
    """Return the names of what a scenario measures, in their order."""
    return dict.fromkeys(
        name for side in rounds.values() for all_ in side for name in all_ if name != "others"
    )


def findings_of(found: Mapping[str, Any]) -> list[Finding]:
    """Return what was measured of the promises of a scenario; older results have what others had only in their rounds."""
    rounds: Rounds = found["rounds"]
    n_rounds, others = max(map(len, rounds.values())), most_others(rounds)
    return [Finding.from_data({"others": others, **one}, n_rounds) for one in found["promises"]]


def circumstances(found: Mapping[str, Any], machines: Machines) -> str:
    """Return how often a scenario was measured, on which machine, and whether that was quiet."""
    rounds: Rounds = found["rounds"]
    n_rounds, others = max(map(len, rounds.values())), most_others(rounds) or 0.0
    noise = (
        ""
        if others <= QUIET
        else f" **Not a quiet machine**: others had up to {others:.0%} of it; such rounds are left out unless they are most."
    )
    return f"Medians of {n_rounds} round{'s' * (n_rounds > 1)} on machine {machines.key(found['machine'])}.{noise}"


def shown(value: float) -> str:
    """Write a number in three digits, whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
