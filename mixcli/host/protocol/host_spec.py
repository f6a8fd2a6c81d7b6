"""What starts a host process: its name, and the plan of its load."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixcli.host.protocol.host_name import HostName
from profiles.placement import Placement


@dataclass(frozen=True)
class DraftLoad:
    """A small model that guesses tokens for the one that is loaded: its GGUF and its placement."""

    path: Path
    placement: Placement

    def to_data(self) -> dict[str, str]:
        """Return the JSON object; `from_data` reads it."""
        return {"path": os.fspath(self.path), "placement": self.placement.to_json()}

    @classmethod
    def from_data(cls, data: Any) -> "DraftLoad":
        """Read what `to_data` returned."""
        return cls(Path(data["path"]), Placement.from_json(data["placement"]))


@dataclass(frozen=True)
class LoadPlan:
    """How to load a model: a placement, the bytes that its plan expects on each device, the next smaller plan, and the model that drafts for it.

    `step_costs` are what the plan expects of steps of several tokens (profiles/drafting.py). `reasons` say what was given up to fit, `needs` are all bytes that
    it takes of each device; these two are for the client and do not travel to the host.
    """

    placement: Placement
    expected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    smaller: "LoadPlan | None" = None
    reasons: tuple[str, ...] = ()
    draft: DraftLoad | None = None
    step_costs: tuple[float, ...] = ()
    needs: Mapping[str, int] = field(default_factory=dict)

    def to_data(self) -> dict[str, object]:
        """Return the JSON object; `from_data` reads it."""
        return {
            "placement": self.placement.to_json(),
            "expected": self.expected,
            "smaller": self.smaller.to_data() if self.smaller else None,
            "draft": self.draft.to_data() if self.draft else None,
            "step_costs": self.step_costs,
        }

    @classmethod
    def from_data(cls, data: Any) -> "LoadPlan":
        """Read what `to_data` returned."""
        smaller, draft = data["smaller"], data["draft"]
        return cls(
            Placement.from_json(data["placement"]),
            data["expected"],
            cls.from_data(smaller) if smaller else None,
            draft=DraftLoad.from_data(draft) if draft else None,
            step_costs=tuple(data["step_costs"]),
        )


@dataclass(frozen=True)
class HostSpec:
    """Everything that starts a host: its name and the placement of its model."""

    name: HostName
    order: LoadPlan

    def to_json(self) -> str:
        """Return the text that starts a host."""
        name = {"path": os.fspath(self.name.path), "label": self.name.label, "asked": self.name.asked}
        return json.dumps({"name": name, "order": self.order.to_data()})

    @classmethod
    def from_json(cls, text: str) -> "HostSpec":
        """Read what `to_json` wrote."""
        data = json.loads(text)
        name = data["name"]
        return cls(
            HostName(Path(name["path"]), name["label"], name["asked"]), LoadPlan.from_data(data["order"])
        )
