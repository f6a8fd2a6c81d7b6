"""Checkpoint to Q4_K_M: one pass of quantize/ against llama.cpp's two steps, same machine, same minute, same bytes.

    python -m bench.quantize [--layers 1] [--threads 2] [--sdist UNPACKED_SDIST --python OTHER_VENV/bin/python] [--json FILE]

Makes a checkpoint with the layer shapes of Mixtral 8x7B (3.4 GB for one layer) and converts it in processes of their own. The two steps are
llama.cpp's convert_hf_to_gguf.py to BF16 and llama_model_quantize, which is what the program llama-quantize calls. The
converter comes with the source distribution of llama-cpp-python and needs torch; without --sdist quantize/ writes the BF16
file instead, which is faster and makes the comparison harder on us. Prints seconds, weights a second, peak memory and disk.
"""

import argparse
import filecmp
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.quantize.builders import mixtral_shapes, write_json, write_tokenizer

SHAPE = {"n_embd": 4096, "n_ff": 14336, "n_head": 32, "n_head_kv": 8, "n_vocab": 32000, "n_expert": 8}
STEP = 1 << 24  # weights made at a time

CONVERT = """
import sys
from pathlib import Path
from quantize import convert
source, target, output_type, threads = sys.argv[1:]
convert(Path(source), Path(target), output_type=output_type, n_threads=int(threads))
"""
QUANTIZE = """
import ctypes, sys
import llama_cpp.llama_cpp as llama
source, target, file_type, threads = sys.argv[1:]
params = llama.llama_model_quantize_default_params()
params.ftype, params.nthread = int(file_type), int(threads)
sys.exit(llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""


@dataclass(frozen=True)
class Cost:
    """What one process took: wall and CPU seconds, peak resident bytes, and the bytes it left on the disk."""

    step: str
    seconds: float
    cpu_seconds: float
    bytes_memory: int
    bytes_disk: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where to work; needs about 3 times the checkpoint")
    parser.add_argument("--sdist", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-quantize-") as temporary:
        folder = Path(temporary)
        n_weights = make_checkpoint(folder / "hf", options.layers)
        print(
            f"checkpoint: {options.layers} layer(s) of Mixtral 8x7B, {n_weights / 1e6:,.0f} million weights"
        )
        bf16, threads = folder / "bf16.gguf", str(options.threads)
        convert, quantize = [sys.executable, "-c", CONVERT], [sys.executable, "-c", QUANTIZE]
        first = [*convert, str(folder / "hf"), str(bf16), "BF16", threads]
        if options.sdist:
            script = options.sdist / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
            first = [
                options.python,
                str(script),
                str(folder / "hf"),
                "--outfile",
                str(bf16),
                "--outtype",
                "bf16",
            ]
        warm(folder / "hf")
        one = measure(
            "one pass", [*convert, str(folder / "hf"), str(folder / "one.gguf"), "Q4_K_M", threads], folder
        )
        two_a = measure("two steps: to BF16", first, folder)
        two_b = measure(
            "two steps: quantize", [*quantize, str(bf16), str(folder / "two.gguf"), "15", threads], folder
        )
        same = filecmp.cmp(folder / "one.gguf", folder / "two.gguf", shallow=False)
    for cost in (one, two_a, two_b):
        print(
            f"{cost.step:22} {cost.seconds:7.1f} s  {cost.cpu_seconds:7.1f} CPU s  {n_weights / cost.seconds / 1e6:6.1f} M weights/s"
            f"  memory {cost.bytes_memory / 2**20:6.0f} MiB  disk {cost.bytes_disk / 2**20:6.0f} MiB"
        )
    results = {
        "n_weights": n_weights,
        "threads": options.threads,
        "steps": [asdict(cost) for cost in (one, two_a, two_b)],
        "converter": "llama.cpp" if options.sdist else "quantize",
        "wall_of_two_steps": one.seconds / (two_a.seconds + two_b.seconds),
        "speed_of_llama_quantize": two_b.seconds / one.seconds,
        "same_file": same,
    }
    print(
        f"one pass takes {results['wall_of_two_steps']:.2f} of the two steps and quantizes {results['speed_of_llama_quantize']:.1f} times "
        f"as fast as llama_model_quantize; the files are {'the same' if same else 'not the same'}"
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if same or options.sdist else 1


def make_checkpoint(folder: Path, n_layer: int) -> int:
    """Write random BF16 weights under Mixtral's names; gives how many."""
    folder.mkdir()
    shapes = mixtral_shapes(n_layer=n_layer, **SHAPE)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    rng = np.random.default_rng(1)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for at in range(0, end // 2, STEP):
            values = rng.standard_normal(min(STEP, end // 2 - at), dtype=np.float32) * np.float32(0.02)
            file.write((values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes())
    config = {
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
    write_json(folder / "config.json", config)
    write_tokenizer(folder, "v1")
    return end // 2


def warm(folder: Path) -> None:
    """Read the source once, so that nobody is slower for having come first."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            while file.read(STEP):
                pass


def measure(step: str, command: list[str], folder: Path) -> Cost:
    """Run a command to its end; its peak memory includes mapped source pages."""
    before = {path.name for path in folder.iterdir()}
    started = time.monotonic()
    pid = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"{step} failed with status {status}")
    grown = sum(path.stat().st_size for path in folder.iterdir() if path.name not in before)
    return Cost(step, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, grown)


if __name__ == "__main__":
    sys.exit(main())
