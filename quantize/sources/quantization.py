"""Read how the weights of a checkpoint are quantized: FP8 (e4m3) is read as weights, anything else is refused by name.

Hugging Face folders say so in `quantization_config`, Mistral's own in `quantization`, and MLX writes both.
"""

from collections.abc import Mapping
from typing import Any

from quantize.errors import Unsupported
from quantize.sources.json_fields import Fields, is_none
from quantize.wording import shown

MAX_BLOCK = 1 << 20

_KEYS = ("quantization_config", "quantization")
_COMPRESSED = ("float-quantized", "naive-quantized")  # the formats of compressed-tensors that hold plain FP8

Block = tuple[int, int]


def scale_block(config: Mapping[str, Any], where: str) -> Block | None:
    """Return how many (rows, columns) of a weight share one scale; None where no block size is declared.

    Raises Unsupported, with its name, for every quantization but FP8 in e4m3.
    """
    places = (config, config.get("text_config"))
    found = [
        method
        for place in places
        if isinstance(place, dict)
        for key in _KEYS
        if not is_none(method := place.get(key))
    ]
    blocks = {_block(method, where) for method in found}
    return next((block for block in blocks if block), None)


def _block(method: object, where: str) -> Block | None:
    if not isinstance(method, dict):
        raise _unsupported(method if isinstance(method, str) else shown(method), where)
    name = method.get("quant_method")
    if name == "fp8":
        return _pair(method.get("weight_block_size"), where)
    if str(name).replace("_", "-") == "compressed-tensors":
        return _compressed(method, where)
    if name == "modelopt" and method.get("quant_algo") == "FP8":
        return None
    if name is None and method.get("qformat_weight") == "fp8_e4m3":
        return None
    raise _unsupported(_named(method), where)


def _named(method: Mapping[str, Any]) -> str:
    """Name a quantization as far as its configuration does."""
    name = method.get("quant_method", method.get("qformat_weight"))
    if name is None and method.get("bits") is not None:  # MLX names no method
        return f"{shown(method['bits'])} bits"
    words = (name, method.get("quant_algo"), method.get("format"))
    return " ".join(word for word in words if isinstance(word, str)) or "unknown method"


def _compressed(method: Mapping[str, Any], where: str) -> Block | None:
    """Return the block size of compressed-tensors, whose groups must all be FP8 and of one block size."""
    groups = method.get("config_groups")
    weights = [
        group.get("weights") if isinstance(group, dict) else None
        for group in (groups.values() if isinstance(groups, dict) else ())
    ]
    is_fp8 = method.get("format") in _COMPRESSED and all(
        isinstance(kind, dict) and (kind.get("type"), kind.get("num_bits")) == ("float", 8)
        for kind in weights
    )
    if not weights or not is_fp8:
        raise _unsupported(_named(method), where)
    blocks = {_pair(kind.get("block_structure"), where) for kind in weights if kind}
    if len(blocks) > 1:
        raise _unsupported(f"{_named(method)} with several block sizes", where)
    return blocks.pop()


def _pair(value: object, where: str) -> Block | None:
    if is_none(value):
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise _unsupported(f"blocks of {shown(value)}", where)
    sizes = Fields({"rows in a block": value[0], "columns in a block": value[1]}, where)
    return sizes.count("rows in a block", MAX_BLOCK), sizes.count("columns in a block", MAX_BLOCK)


def _unsupported(name: str, where: str) -> Unsupported:
    return Unsupported(
        f"{where} belongs to weights that are already quantized ({name[:60]}); mixcli converts BF16, F16, F32 and FP8 (e4m3): "
        "convert the original checkpoint instead"
    )
