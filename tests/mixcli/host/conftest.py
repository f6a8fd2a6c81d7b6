"""Hosts with the demo model, and the dense model that it came from."""

from tests.support.hosts import file_host, host, name
from tests.support.models import smol_path

__all__ = ["file_host", "host", "name", "smol_path"]
