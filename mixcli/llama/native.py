"""Start llama.cpp's backend once, keep its log, and own native pointers."""

import os
import re
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from llama_cpp import __version__ as bindings_version
from llama_cpp import llama_cpp as C

from mixcli.errors import MixcliError
from mixcli.llama.log import Log
from quantize import bindings

OUT_OF_MEMORY = re.compile(
    r"(?i)(failed|unable|cannot) to allocate|cannot allocate memory|out of memory|cudaMalloc failed|bad_alloc"
)

if _wrong := bindings.mismatch(C, bindings_version):  # before the first call
    raise MixcliError(_wrong)

LOG = Log()
_on_log = C.llama_log_callback(LOG)
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort must not start a debugger on the terminal


def start_backend() -> None:
    C.llama_backend_init()  # does its work once
    C.llama_log_set(
        _on_log, None
    )  # the bindings print on stderr; others in this process may have borrowed it


start_backend()


class Owner:
    """An object that owns one native pointer and frees it once."""

    def __init__(self, pointer: int, free: Callable[[int], object]) -> None:
        self.pointer = pointer
        self._free = weakref.finalize(self, free, pointer)

    def close(self) -> None:
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
