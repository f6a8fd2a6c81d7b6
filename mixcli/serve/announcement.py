"""Let programs of this user find the port: a record in the folder of sockets, for as long as it is open."""

import contextlib
import socket
from collections.abc import Iterator

from mixcli.host.protocol.port_record import PortRecord
from mixcli.serve.addresses import own_address, urls
from mixcli.system import paths


@contextlib.contextmanager
def announced(listener: socket.socket, address: str, key: str) -> Iterator[None]:
    """Leave the record of a port while the block runs; `key` is what the gate lets look at it."""
    port = int(listener.getsockname()[1])
    record = PortRecord.mine(urls(address, port)[-1], own_address(listener), port, key)
    folder = paths.runtime_dir()
    record.write(folder)
    try:
        yield
    finally:
        record.remove(folder)
