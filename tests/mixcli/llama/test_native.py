"""The start of llama.cpp's backend: nothing of it is called with bindings of another release."""

import subprocess
import sys

ANOTHER_RELEASE = """
import llama_cpp
from llama_cpp import llama_cpp as native
llama_cpp.__version__ = "0.0.1"
native.llama_backend_init = lambda: print("called")
try:
    import mixcli.llama.native
except Exception as error:
    print(error)
"""


def test_another_release_is_refused_before_the_first_call() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_RELEASE], capture_output=True, text=True, check=True, timeout=60
    )
    assert "called" not in done.stdout
    assert done.stdout.startswith("llama-cpp-python 0.0.1 is installed, but mixcli needs ")
