"""Identify a BPE pre-tokenizer by its structure, and map it to llama.cpp's name.

llama.cpp's converter knows a pre-tokenizer by the hash of a sample's token ids, one for each model ever seen. Here it is known by what
it does: the structure of `pre_tokenizer` in tokenizer.json.
"""

import json
from typing import Any

from quantize.errors import Unsupported

TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3_PATTERN = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_PATTERN = _LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]


_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# llama.cpp's name -> the steps in tokenizer.json
STEPS: dict[str, list[dict[str, Any]]] = {
    "smollm": [{"type": "Digits", "individual_digits": True}, _GPT2],
    "gpt-2": [_GPT2],
    "tekken": _split(TEKKEN_PATTERN),
    "llama-bpe": _split(_LLAMA3_PATTERN),
    "qwen2": _split(_QWEN2_PATTERN),
}


def pretokenizer_name(pre_tokenizer: Any, where: str) -> str:
    """Return llama.cpp's name of a tokenizer.json's `pre_tokenizer`; Unsupported for one that is not known."""
    steps = pre_tokenizer.get("pretokenizers") if _is(pre_tokenizer, "Sequence") else [pre_tokenizer]
    if isinstance(steps, list):
        essence = [_essence(step) for step in steps]
        for name, known in STEPS.items():
            if essence == [_essence(step) for step in known]:
                return name
    shown = json.dumps(pre_tokenizer, ensure_ascii=False)
    raise Unsupported(
        f"{where} uses an unsupported pre-tokenizer ({shown[:120]}{'...' * (len(shown) > 120)}); "
        f"supported are {', '.join(STEPS)}"
    )


def pretokenizer_json(name: str, where: str) -> dict[str, Any]:
    """Return the `pre_tokenizer` of a tokenizer.json for llama.cpp's name; Unsupported for one that is not known."""
    if name not in STEPS:
        raise Unsupported(
            f"{where} uses the unsupported pre-tokenizer {name!r}; supported are {', '.join(STEPS)}"
        )
    steps = STEPS[name]
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def _is(step: Any, kind: str) -> bool:
    return isinstance(step, dict) and step.get("type") == kind


def _essence(step: Any) -> object:
    """Return what decides where text is cut: defaults filled in, offsets left out."""
    if _is(step, "ByteLevel"):
        return "ByteLevel", step.get("add_prefix_space", True), step.get("use_regex", True)
    if _is(step, "Digits"):
        return "Digits", step.get("individual_digits", False)
    if _is(step, "Split"):
        return "Split", step.get("pattern"), step.get("behavior"), step.get("invert", False)
    return repr(step)
