"""A checkpoint with the layer shapes of Mixtral 8x7B: as few layers as you like, weights drawn at random, the real tokenizer.

    python -m bench.checkpoint FOLDER [--layers 1]

One layer is 3.4 GB of BF16. The weights are spread as those of trained models are: normal, every row with a width of its own
(between 0.01 and 0.04), and one weight in 400 four times as wide. What they are changes no speed, but it does change what a quantizer finds.
"""

import argparse
import json
import shutil
from math import prod
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tests.support.checkpoints import mixtral_shapes, write_json, write_tokenizer

SHAPE = {"n_embd": 4096, "n_ff": 14336, "n_head": 32, "n_head_kv": 8, "n_vocab": 32000, "n_expert": 8}
_WIDTHS = np.geomspace(0.01, 0.04, 8)
_STEP = 1 << 24  # weights drawn at a time
_ONE = np.uint16(0x3F80)  # 1.0 as BF16


def n_weights(n_layer: int) -> int:
    """How many weights a checkpoint of that many layers has."""
    return sum(prod(shape) for shape in mixtral_shapes(n_layer=n_layer, **SHAPE).values())


def make_checkpoint(folder: Path, n_layer: int = 1, seed: int = 1) -> Path:
    """Write the checkpoint; the same arguments give the same bytes."""
    folder.mkdir(parents=True)
    shapes = mixtral_shapes(n_layer=n_layer, **SHAPE)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    random = np.random.default_rng(seed)
    quantiles = _quantiles()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for shape in shapes.values():
            for n_rows in _slabs(shape):
                file.write(
                    _draw(random, quantiles, n_rows, shape[-1]).data if len(shape) > 1 else _ones(shape)
                )
    write_json(folder / "config.json", _config(n_layer))
    write_tokenizer(folder, "v1")
    return folder


def _quantiles() -> NDArray[np.uint16]:
    """65,536 equally likely weights for each width, as BF16: a table to draw from."""
    normal = NormalDist()
    usual = np.array([normal.inv_cdf((i + 0.5) / (1 << 16)) for i in range(1 << 16)], np.float32)
    usual[::400] *= 4
    table = (_WIDTHS[:, None] * usual).astype(np.float32)
    return (table.view(np.uint32) >> np.uint32(16)).astype("<u2")


def _slabs(shape: tuple[int, ...]) -> list[int]:
    """Cut a matrix into runs of rows that fit in memory."""
    n_rows, step = prod(shape[:-1]), max(1, _STEP // shape[-1])
    return [min(step, n_rows - at) for at in range(0, n_rows, step)]


def _draw(
    random: np.random.Generator, quantiles: NDArray[np.uint16], n_rows: int, n_cols: int
) -> NDArray[np.uint16]:
    rows = np.empty((n_rows, n_cols), "<u2")
    for row, width in zip(rows, random.integers(0, len(quantiles), n_rows), strict=True):
        np.take(quantiles[width], random.integers(0, 1 << 16, n_cols, np.uint16), out=row)
    return rows


def _ones(shape: tuple[int, ...]) -> bytes:
    return np.full(shape, _ONE, "<u2").tobytes()


def _config(n_layer: int) -> dict[str, object]:
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": SHAPE["n_embd"],
        "intermediate_size": SHAPE["n_ff"],
        "num_hidden_layers": n_layer,
        "num_attention_heads": SHAPE["n_head"],
        "num_key_value_heads": SHAPE["n_head_kv"],
        "num_local_experts": SHAPE["n_expert"],
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "vocab_size": SHAPE["n_vocab"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def check_disk(folder: Path, n_bytes: int) -> None:
    """Refuse before anything is written when a folder's disk has too little room."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise SystemExit(
            f"{folder} needs {n_bytes / 1e9:.1f} GB of disk and has {free / 1e9:.1f} GB free; make room or give another --folder."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=1)
    options = parser.parse_args()
    check_disk(options.folder.absolute().parent, 2 * n_weights(options.layers))
    make_checkpoint(options.folder, options.layers)


if __name__ == "__main__":
    main()
