"""SmolLM2, and the stand-in hub."""

from tests.support.hub import hub, online, pull
from tests.support.models import smol_path

__all__ = ["hub", "online", "pull", "smol_path"]
