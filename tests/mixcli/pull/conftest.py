"""The stand-in hub."""

from tests.support.hub import hub, online, pull, start_pull

__all__ = ["hub", "online", "pull", "start_pull"]
