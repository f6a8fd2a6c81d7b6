"""Merge the experts of Mixtral GGUFs from December 2023, which have one tensor per expert.

Their bytes lie as they are in the merged tensor, one expert after the other, so nothing is lost as long as the experts of a
layer have one type.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantize.errors import MalformedFile
from quantize.source import ModelSource, TensorSource
from quantize.wording import counted, shown

_EXPERT = re.compile(r"(?P<stack>blk\.\d+\.ffn_(?:gate|down|up))\.(?P<expert>\d{1,3})\.weight")
MIXED = "/"  # joins the type names of experts that are not of one type, in TensorSource.dtype


def merge_experts(model: ModelSource, name: str) -> ModelSource:
    """Merge single experts into stacks; gives `model` itself when it has none.

    Experts of different types give a stack without stored bytes, which can be quantized again but not copied. Raises
    CorruptFile when an expert is missing or has another shape; `name` stands for the file.
    """
    stacks: dict[str, dict[int, TensorSource]] = {}
    others = []
    for tensor in model.tensors:
        if match := _EXPERT.fullmatch(tensor.name):
            stacks.setdefault(match["stack"], {})[int(match["expert"])] = tensor
        else:
            others.append(tensor)
    if not stacks:
        return model
    declared = model.metadata.get("llama.expert_count")
    n_expert = declared.value if declared else 0
    for stack, experts in stacks.items():
        # the number is only a claim: nothing is counted up to it before as many experts are there
        missing = next((i for i in range(len(experts) + 1) if i not in experts), 0)
        if n_expert != len(experts) or missing < len(experts):
            detail = (
                f"expert {missing} is missing"
                if missing < max(experts)
                else f"it has {counted(len(experts), 'expert')}"
            )
            raise MalformedFile(f"{name}: {stack}: {detail}, but the model declares {shown(n_expert)}")
    merged = [
        _stack(f"{stack}_exps.weight", [experts[i] for i in range(n_expert)], name)
        for stack, experts in stacks.items()
    ]
    return replace(model, tensors=[*others, *merged])


def _stack(name: str, experts: Sequence[TensorSource], file: str) -> TensorSource:
    shape = experts[0].shape
    if odd := next((expert for expert in experts if expert.shape != shape or len(shape) != 2), None):
        raise MalformedFile(f"{file}: {odd.name} has shape {odd.shape} and the first expert {shape}")
    n_rows = shape[0]
    types = sorted({expert.dtype for expert in experts})

    def pieces(start: int, stop: int) -> list[tuple[TensorSource, int, int]]:
        return [
            (experts[i], max(start - i * n_rows, 0), min(stop - i * n_rows, n_rows))
            for i in range(start // n_rows, -(-stop // n_rows))
        ]

    def read(start: int, stop: int) -> NDArray[np.float32]:
        return np.concatenate([expert.read(first, last) for expert, first, last in pieces(start, stop)])

    def read_raw(start: int, stop: int) -> NDArray[np.uint8]:
        return np.concatenate(
            [expert.read_raw(first, last) for expert, first, last in pieces(start, stop) if expert.read_raw]
        )

    return TensorSource(
        name,
        (len(experts), *shape),
        MIXED.join(types),
        read,
        f"{file}: {name}",
        read_raw if len(types) == 1 else None,
    )


__all__ = ["MIXED", "merge_experts"]
