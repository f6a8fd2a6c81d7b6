"""The start of llama.cpp's backend: nothing of it is called with bindings of another release."""

import subprocess
import sys

import pytest

from mixcli.llama.native import OUT_OF_MEMORY

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


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("llama_model_load: error loading model: mmap failed: Cannot allocate memory", True),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1024", True),
        ("llama_model_load: error loading model: mmap failed: Permission denied", False),
    ],
)
def test_lack_of_memory_is_known_by_its_words(line: str, is_one: bool) -> None:
    assert bool(OUT_OF_MEMORY.search(line)) is is_one
