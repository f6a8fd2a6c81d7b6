"""The golden choices of a file on well-known machines, as lines of text. After estimates have changed, look at the difference of

python -m tests.profiles.file_choices > tests/profiles/file_choices.txt
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mixcli.pull.remote_shape import unseen_shapes
from profiles.models import known_models
from profiles.profile_files import load_profile
from profiles.quality import USUAL
from profiles.quant_choice import FileChoice, choose, pick
from profiles.request import PlanRequest, Preference, Rule
from profiles.shape import ModelShape

GOLDEN = Path(__file__).with_suffix(".txt")
MODELS = ("mixtral", "mixtral-8x22b", "mistral", "mistral-small-4")
MACHINES = (
    "rtx-3090", "rtx-4090", "2x3090", "rtx-4060-ti-16gb", "rtx-3060-12gb", "rtx-5090",
    "cpu", "cpu-avx2-32gb", "cpu-avx512-64gb", "apple-m-series",
)  # fmt: skip
SHOWN: tuple[Preference, ...] = ("quality", "balanced", "speed")


@cache
def shapes(model: str) -> dict[str, ModelShape]:
    return unseen_shapes(known_models()[model], USUAL)


@cache
def choice(model: str, machine: str) -> FileChoice:
    return choose(shapes(model), load_profile(machine).machine(), PlanRequest())


def line(model: str, machine: str) -> str:
    """Return what each preference chooses with its tokens a second, and the largest file that lies wholly on the cards."""
    found = choice(model, machine)
    picked = ((prefer, pick(found.rows, Rule(prefer))[0]) for prefer in SHOWN)
    words = [f"{prefer} {row.type} {row.decode:.0f}" if row else f"{prefer} none" for prefer, row in picked]
    largest = found.largest_on_gpus
    return "  ".join((f"{model} {machine}:", *words, f"on cards {largest.type if largest else 'none'}"))


def lines() -> Iterator[str]:
    return (line(model, machine) for model in MODELS for machine in MACHINES)


if __name__ == "__main__":
    for text in lines():
        print(text)  # noqa: T201
