"""The thread that waits for signals while another one serves the port."""

import subprocess
import sys

from tests.support.waiting import LIMIT

START = """
import os, signal, socket, threading, time
from pathlib import Path
from mixcli.serve.cors import Cors
from mixcli.serve.gate import Gate
from mixcli.serve.limits import Limits
from mixcli.serve.one_model import OneModel
from mixcli.serve.server import PortServer
"""
CODE = (
    START
    + """
with socket.create_server(("127.0.0.1", 0)) as listener:
    model = OneModel(lambda: Path("x"))
    server = PortServer(listener, Gate(frozenset({"localhost"}), None, Cors()), Limits(), model)
    with server.running():
        (port,) = [thread for thread in threading.enumerate() if thread.name == "port"]

        def end():
            while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                time.sleep(0.01)
            time.sleep(0.1)
            signal.pthread_kill(port.ident, signal.SIGTERM)

        threading.Thread(target=end, daemon=True).start()
        server.wait()
print("drained")
"""
)


def test_a_signal_that_another_thread_gets_ends_the_server() -> None:
    """As after a pause: a main thread that still sleeps is passed over by the system."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.stdout == "drained\n", done.stderr


INTERRUPTED = (
    START
    + """
class Interrupting(OneModel):
    async def open(self):
        os.kill(os.getpid(), signal.SIGINT)
        await super().open()

with socket.create_server(("127.0.0.1", 0)) as listener:
    server = PortServer(listener, Gate(frozenset(), None, Cors()), Limits(), Interrupting(lambda: Path("x")))
    try:
        with server.running():
            time.sleep(600)
    except KeyboardInterrupt:
        print("interrupted")
"""
)


def test_ctrl_c_ends_a_server_that_begins() -> None:
    """Its thread went on, and the end of the program waited for it."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
