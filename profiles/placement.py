"""Placement: the numbers that say where a model lives and how it runs, in llama.cpp's own terms."""

import json
from dataclasses import asdict, dataclass, fields

from profiles.request import SEQUENCES

OUTPUTS = 256  # rows of logits that one step may want: one for each request, more for drafts and labels


@dataclass(frozen=True)
class Placement:
    """Everything that llama.cpp must be told to load a model in one particular way.

    Sizes are tokens (`n_ctx`, `n_batch`, `n_ubatch`) and layers (`n_gpu_layers`, counting the output layer).
    `tensor_overrides` are (regex over tensor names, buffer type name such as "CPU" or "CUDA0"), first match wins.
    `load_mode` is "mmap", "mlock" or "none". `repack` lets the CPU backend keep a second, faster layout of some weights
    (llama.cpp's use_extra_bufts): better decode for one person, worse prefill for a batch. `workers` are HOST:PORT of machines whose devices come first.
    """

    n_ctx: int = 4096
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = SEQUENCES
    n_gpu_layers: int = 0
    tensor_overrides: tuple[tuple[str, str], ...] = ()
    tensor_split: tuple[float, ...] = ()
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: bool = True
    n_threads: int = 4
    n_threads_batch: int = 4
    load_mode: str = "mmap"
    op_offload: bool = True
    repack: bool = True
    workers: tuple[str, ...] = ()

    @property
    def n_sequences(self) -> int:
        """Sequence ids that the context has; with more than a micro-batch has tokens llama.cpp aborts."""
        return min(self.n_seq_max, self.n_ubatch)

    @property
    def speculates(self) -> bool:
        """Return whether drafts of prompt lookup are followed: on a processor verifying a token costs nearly as much as writing it."""
        return self.n_gpu_layers > 0

    @property
    def n_outputs(self) -> int:
        """Rows of logits that llama.cpp's output buffer grows to."""
        return outputs(self.n_sequences, self.n_ubatch)

    def to_json(self) -> str:
        """Return the canonical JSON text: equal placements give equal texts."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Placement":
        """Read what `to_json` wrote; a key that is not a field raises ValueError."""
        data = json.loads(text)
        if unknown := set(data) - {field.name for field in fields(cls)}:
            raise ValueError(f"not fields of a placement: {', '.join(sorted(unknown))}")
        data["tensor_overrides"] = tuple((regex, buft) for regex, buft in data.get("tensor_overrides", ()))
        data["tensor_split"] = tuple(data.get("tensor_split", ()))
        data["workers"] = tuple(data.get("workers", ()))
        return cls(**data)


def outputs(n_sequences: int, n_ubatch: int) -> int:
    """Return how many rows of logits one step may want; llama.cpp makes room for one a sequence and grows when more are wanted."""
    return max(n_sequences, min(OUTPUTS, n_ubatch))
