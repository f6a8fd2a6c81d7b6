"""The address of a worker, as people write it and as llama.cpp's RPC takes it: HOST:PORT with an IPv4 address or a host name."""

import ipaddress
import os
import re
import socket

from mixcli.errors import MixcliError, UsageError

EXAMPLE = "192.168.1.20:50052"
HOST_NAME = re.compile(r"(?!.*\.\.)[^\s/?#@:\[\]\x00-\x1f\x7f.][^\s/?#@:\[\]\x00-\x1f\x7f]*")
LONGEST_NAME, LONGEST_LABEL = 253, 63  # characters that a host name and each of its parts may have


def parse_worker(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, :PORT or PORT, where the host is 127.0.0.1 if none is named; UsageError if it is invalid.

    The error does not repeat an address that may hold a password.
    """
    host, _, port = text.strip().rpartition(":")
    if "@" in text:
        raise UsageError(f"invalid worker address: a worker has no user and no password; use {EXAMPLE}")
    shown = repr(text if len(text) <= 60 else f"{text[:60]}…")
    if "://" in text:
        raise UsageError(f"invalid worker address {shown}: leave out the scheme; use {EXAMPLE}")
    if _is_ipv6(host) or _is_ipv6(text.strip()):
        raise UsageError(
            f"invalid worker address {shown}: llama.cpp's RPC has no IPv6; use an IPv4 address or a host name, such as {EXAMPLE}"
        )
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16 or not _is_host(host):
        raise UsageError(
            f"invalid worker address {shown}: use HOST:PORT with a port from 1 to 65535, such as {EXAMPLE}"
        )
    return host.lower() or "127.0.0.1", int(port)


def worker_address(text: str) -> str:
    """Return an address as HOST:PORT, so that two ways to write one are equal; UsageError if it is invalid."""
    host, port = parse_worker(text)
    return f"{host}:{port}"


def listening_address(text: str) -> tuple[str, int]:
    """Return the IPv4 address and the port at which a worker can listen; MixcliError where it cannot, such as a port that is in use."""
    host, port = parse_worker(text)
    try:
        address = str(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        with socket.create_server((address, port)):
            pass
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        why = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise MixcliError(
            f"cannot listen on {host}:{port}: {why}; pass --listen with an address of this machine and a free port"
        ) from error
    return address, port


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0]).version == 6
    except ValueError:
        return False


def _is_host(text: str) -> bool:
    if not text:
        return True
    labels = text.removesuffix(".").split(".")
    fits = len(text) <= LONGEST_NAME and all(len(label) <= LONGEST_LABEL for label in labels)
    return fits and HOST_NAME.fullmatch(text) is not None


__all__ = ["listening_address", "parse_worker", "worker_address"]
