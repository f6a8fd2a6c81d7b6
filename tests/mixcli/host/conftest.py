"""Hosts with the demo model."""

from tests.support.hosts import file_host, host, name

__all__ = ["file_host", "host", "name"]
