"""Bind the port, and name the addresses at which others reach it."""

import contextlib
import errno
import fcntl
import ipaddress
import socket
import struct
import sys

from mixcli.errors import InUse, MixcliError, UsageError
from mixcli.system.console import console

ALL = ("0.0.0.0", "::", "")  # addresses that stand for all of the machine's
BACKLOG = 1024  # connections that the system keeps until they are accepted
SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" else 0x8915  # <net/if.h>: the address of an interface


def bound(address: str, port: int) -> socket.socket:
    """Bind the port before anything is loaded; 0 picks a free one. MixcliError says why it cannot be bound."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(
            f"{address} is not an address of this machine ({error.strerror}); pass another with --host"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InUse(f"port {port} is in use on {address}; pass another with --port") from error
        raise MixcliError(
            f"cannot listen on port {port} of {address}: {error.strerror}; pass another with --port"
        ) from error
    return listener


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def urls(address: str, port: int) -> list[str]:
    """Return the URLs of the API at which it can be reached: by the given address, or by the machine's name and IPv4 addresses."""
    return [f"{root}/v1" for root in _roots(address, port)]


def page_urls(address: str, port: int) -> list[str]:
    """Return the URLs of the chat page."""
    return [f"{root}/" for root in _roots(address, port)]


def own_address(listener: socket.socket) -> str:
    """Return the address at which this machine reaches a listening socket."""
    address = str(listener.getsockname()[0])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def note_listening(listener: socket.socket, address: str, which: str, *, has_page: bool) -> int:
    """Note that requests are accepted already, and return the port."""
    port = int(listener.getsockname()[1])
    console.note(f"listening on port {port} of {address}; requests wait until {which} loaded")
    if has_page:
        console.note(f"chat page at {' and '.join(page_urls(address, port))}")
    return port


def _roots(address: str, port: int) -> list[str]:
    hosts = [address]
    if address in ALL:
        hosts = [socket.gethostname(), *_own_addresses(), "127.0.0.1"]
    shown = (f"[{host}]" if ":" in host else host for host in dict.fromkeys(hosts) if host)
    return [f"http://{host}:{port}" for host in shown]


def _own_addresses() -> list[str]:
    """Return the IPv4 addresses of the network interfaces, without the loopback's."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # one without an IPv4 address
                record = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(record[20:24]))
    return [one for one in found if not ipaddress.ip_address(one).is_loopback]
