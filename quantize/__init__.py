"""Convert a checkpoint to a GGUF: read, map, quantize, write.

    from quantize import Options, convert
    convert(Path("Mixtral-8x7B-Instruct-v0.1"), Path("mixtral.Q4_K_M.gguf"), Options(output_type="Q4_K_M"))

Names are imported when they are first used, so that reading a header costs no numpy and no llama_cpp.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantize.conversion import Options, convert, prepare
    from quantize.errors import CorruptFile, NoSpace, QuantizeError, Unsupported
    from quantize.recipe import FILE_TYPES
    from quantize.sources.gguf_header import read_header
    from quantize.writer import Progress, WriteReport, execute

_HOME = {
    "FILE_TYPES": "recipe",
    "CorruptFile": "errors",
    "NoSpace": "errors",
    "Options": "conversion",
    "Progress": "writer",
    "QuantizeError": "errors",
    "Unsupported": "errors",
    "WriteReport": "writer",
    "convert": "conversion",
    "execute": "writer",
    "prepare": "conversion",
    "read_header": "sources.gguf_header",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quantize' has no attribute {name!r}")
    return getattr(import_module(f"quantize.{_HOME[name]}"), name)


__all__ = [
    "FILE_TYPES",
    "CorruptFile",
    "NoSpace",
    "Options",
    "Progress",
    "QuantizeError",
    "Unsupported",
    "WriteReport",
    "convert",
    "execute",
    "prepare",
    "read_header",
]
