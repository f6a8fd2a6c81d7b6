"""The stand-in hub."""

from tests.support.hub import hub, online, pull, start_pull
from tests.support.models import smol_path

__all__ = ["hub", "online", "pull", "smol_path", "start_pull"]
