"""RPC workers on loopback as stand-in GPUs."""

from tests.profiles.conftest import workers

__all__ = ["workers"]
