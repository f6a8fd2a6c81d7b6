"""A loaded host that the tests of a file share."""

from tests.support.hosts import file_host

__all__ = ["file_host"]
