"""The roofline estimate of decode speed for a model as it is placed."""

from typing import TYPE_CHECKING

from mixcli.planning.machines import machine_of
from mixcli.store.headers import header_of, shape_of
from profiles.layout import layout_of
from profiles.speed import estimate

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.store import StoredModel
    from profiles.placement import Placement


def estimated_decode(stored: "StoredModel", load_options: "LoadOptions", placement: "Placement") -> float:
    """Return the tokens per second that a placement should decode on the machine of a wish."""
    shape = shape_of(header_of(stored.parts))
    machine = machine_of(load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    return estimate(shape, machine, placement, layout_of(shape, placement, machine)).decode
