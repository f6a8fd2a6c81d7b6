"""A TCP relay that lets every byte wait and counts them: a network with a long way, on loopback."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

PIECE = 1 << 16


@contextlib.contextmanager
def slow_relay(
    port: int, delay: float = 0.0, trap: Callable[[int], object] = lambda _: None
) -> Iterator[int]:
    """Relay to a port on loopback from the port that is given; whatever passes is `delay` seconds on its way, in both directions.

    `trap` gets how many bytes a client has sent on its connection so far, before each piece of them passes.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def run() -> None:
            with contextlib.suppress(OSError):  # the block has ended
                while True:
                    client, _ = server.accept()
                    there = socket.create_connection(("127.0.0.1", port))
                    for one in (client, there):
                        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        stack.callback(_end, one)
                    _pass_on(client, there, delay, trap)
                    _pass_on(there, client, delay)

        threading.Thread(target=run, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _pass_on(
    source: socket.socket,
    target: socket.socket,
    delay: float,
    trap: Callable[[int], object] = lambda _: None,
) -> None:
    """Begin to read in one thread, and to write in another what was read a `delay` ago; the end of the one ends the other."""
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def read() -> None:
        data, n_bytes = b"-", 0
        while data:
            data = b""
            with contextlib.suppress(OSError):
                data = source.recv(PIECE)
            n_bytes += len(data)
            trap(n_bytes)
            pieces.put((time.monotonic() + delay, data))

    def write() -> None:
        data = b"-"
        while data:
            due, data = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                target.sendall(data)
            except OSError:
                break
        _end(target)

    for work in (read, write):
        threading.Thread(target=work, daemon=True).start()


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
