"""Which loaded models are unloaded for another one: a pure function of what each takes and when it was last used.

A ledger is bytes by device, as a plan counts them ("host", "CUDA0").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Ledger = Mapping[str, int]


@dataclass(frozen=True)
class Resident:
    """A model that takes memory: its ledger, and when its last answer ended (seconds on any clock).

    One that `is_busy` has answers that run, or is being loaded; one that `is_kept` is never unloaded for others.
    """

    name: str
    needs: Ledger
    last_used: float
    is_busy: bool = False
    is_kept: bool = False


@dataclass(frozen=True)
class Memory:
    """The bytes of each device that models may take together, and those that none takes."""

    limits: Ledger
    left: Ledger


def room(limits: Ledger, residents: Iterable[Resident]) -> dict[str, int]:
    """Return the bytes of each device that no resident takes."""
    left = dict(limits)
    for one in residents:
        for device, n_bytes in one.needs.items():
            left[device] = left.get(device, 0) - n_bytes
    return left


def fits(needs: Ledger, left: Ledger) -> bool:
    """Return whether a ledger fits into what is left."""
    return all(n_bytes <= left.get(device, 0) for device, n_bytes in needs.items())


def to_unload(needs: Ledger, limits: Ledger, residents: Sequence[Resident]) -> tuple[Resident, ...] | None:
    """Return the residents to unload for a model with these needs, none where it fits beside all; None where it does not fit even then.

    Idle ones go before busy ones, among them those that were used longest ago; none is unloaded needlessly.
    """
    going: list[Resident] = []
    may_go = sorted(
        (one for one in residents if not one.is_kept), key=lambda one: (one.is_busy, one.last_used)
    )

    def is_enough(gone: Sequence[Resident]) -> bool:
        return fits(needs, room(limits, (one for one in residents if one not in gone)))

    for one in may_go:
        if is_enough(going):
            break
        going.append(one)
    if not is_enough(going):
        return None
    for one in reversed(going.copy()):
        others = [other for other in going if other is not one]
        if is_enough(others):
            going = others
    return tuple(going)
