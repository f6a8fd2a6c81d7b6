"""Golden comparisons with other hardware, as lines of text. After estimates have changed, look at the difference of

python -m tests.mixcli.planning.what_if_cases > tests/mixcli/planning/what_if_cases.txt
"""

from collections.abc import Iterator
from pathlib import Path

from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import target_of
from mixcli.planning.report import subject_of
from mixcli.planning.upgrade_options import read_upgrade
from mixcli.planning.what_if import HardwareComparison, compare
from profiles.planner import plan_if_it_fits
from profiles.request import PlanRequest

GOLDEN = Path(__file__).with_suffix(".txt")
MACHINES = ("rtx-3090", "rtx-4090", "cpu")
# a file that is chosen on each machine, and one that is named
CHANGES = {
    "mixtral": ("ram=96GiB@5600", "gpu=+3090", "pcie=5x16"),
    "mixtral:Q4_K_M": (
        "ram=96GiB@5600", "ram=+32GiB", "bandwidth=90", "gpu=+3090", "gpu=4090", "cores=16", "pcie=5x16", "worker=24GiB@10GbE",
        "ram=192GiB@6400,gpu=2x3090",
    ),
}  # fmt: skip


def comparison(model: str, profile: str) -> HardwareComparison:
    """Return the comparison of every change that the machine can have."""
    options = LoadOptions(PlanRequest(), profile)
    target = target_of(options)
    subject = subject_of(model, None, target)
    machine = target.machine_for([])
    found = (
        subject.planned.chosen.plan
        if subject.planned and subject.planned.chosen
        else plan_if_it_fits(subject.shape, machine, options.request)
    )
    changes = [read_upgrade(text) for text in CHANGES[model] if machine.gpus or "pcie" not in text]
    return compare(subject, found, machine, options, changes)


def lines(model: str, profile: str) -> Iterator[str]:
    """Yield the rows of a comparison, and its notes."""
    found = comparison(model, profile)
    for cells in found.table():
        yield "\t".join((model, profile, *cells))
    for note in found.notes():
        yield "\t".join((model, profile, note))


if __name__ == "__main__":
    for model in CHANGES:
        for profile in MACHINES:
            for text in lines(model, profile):
                print(text)  # noqa: T201
