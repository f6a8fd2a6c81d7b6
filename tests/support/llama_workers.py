"""llama.cpp as the oracle of memory: it loads a header-only file without allocating and says in its log what it would take.

Run as a module, this is a process of its own that may take RPC workers for GPUs (they could not be forgotten again):
{"endpoints": [...], "cases": [[path, placement], ...]} on stdin, what llama.cpp said of each on stdout. With "expected", what the ledger says of each,
the models are really loaded, and a row comes out for each device: its name, the bytes that were planned, and those that it took.
"""

import contextlib
import ctypes
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as C

from mixcli.llama import ggml, rpc
from mixcli.llama.loading import load
from mixcli.llama.model import _buffer_overrides
from mixcli.llama.native import LOG
from mixcli.pull.remote_shape import source_of
from mixcli.system.measurements import Expected
from profiles.models import ModelFacts
from profiles.placement import Placement
from quantize.file_layout import lay_out
from quantize.recipe import FILE_TYPES, choose_types
from quantize.source import ModelSource, text, u32
from tests.support.waiting import wait_for

MIB = 1 << 20
BELOW_EPHEMERAL = (12_000, 32_000)  # Linux and macOS choose ports for connections and for port 0 above them


def write_header_only(facts: ModelFacts, file_type: str, path: Path) -> Path:
    """Write a GGUF of that shape whose data is a hole: a few kilobytes on disk."""
    source = source_of(facts)
    no_vocabulary = {
        "tokenizer.ggml.model": text("none"),
        f"{facts.architecture}.vocab_size": u32(facts.n_vocab),
    }
    source = ModelSource({**source.metadata, **no_vocabulary}, source.tensors, source.fingerprint)
    (placed,) = lay_out(source, choose_types(source, file_type), FILE_TYPES[file_type], path)
    with path.open("wb") as file:
        file.write(placed.header)
        file.truncate(placed.size)
    return path


@dataclass
class Said:
    """What llama.cpp's log says, in MiB: buffers by device name, the whole KV cache, and the bits per weight line's file size."""

    model: dict[str, float] = field(default_factory=dict)
    compute: dict[str, float] = field(default_factory=dict)
    kv: float = 0.0
    file_size: str = ""


def no_alloc(path: Path, placement: Placement) -> Said:
    """Load without allocating and read the log."""
    params = C.llama_model_default_params()
    params.no_alloc, params.load_mode = True, 0
    params.n_gpu_layers, params.use_extra_bufts = placement.n_gpu_layers, placement.repack
    overrides = _buffer_overrides(placement.tensor_overrides)
    params.tensor_buft_overrides = ctypes.addressof(overrides)
    if placement.tensor_split:
        split = (ctypes.c_float * C.llama_max_devices())(*placement.tensor_split)
        params.tensor_split = split
    LOG.clear()
    model = C.llama_model_load_from_file(str(path).encode(), params)
    assert model, LOG.lines()[-5:]
    context = C.llama_context_default_params()
    context.n_ctx, context.n_batch, context.n_ubatch = placement.n_ctx, placement.n_batch, placement.n_ubatch
    context.flash_attn_type, context.op_offload = int(placement.flash_attn), placement.op_offload
    context.type_k, context.type_v = ggml.KV_TYPES[placement.type_k], ggml.KV_TYPES[placement.type_v]
    context.n_seq_max, context.kv_unified = placement.n_sequences, True
    native = C.llama_init_from_model(model, context)
    assert native, LOG.lines()[-5:]
    said = Said()
    for line in LOG.lines():
        if match := re.search(r"(\S+) compute buffer size = +([\d.]+) MiB", line):
            said.compute[match[1]] = said.compute.get(match[1], 0) + float(match[2])
        elif match := re.search(r"llama_kv_cache: size = +([\d.]+) MiB", line):
            said.kv = float(match[1])
        elif match := re.search(r"file size += (.*)\(", line):
            said.file_size = match[1].strip()
    C.llama_free(native)
    C.llama_model_free(model)
    return said


def start_worker(port: int) -> "subprocess.Popen[bytes]":
    """Start an RPC worker on loopback; it listens when this returns."""
    code = "import sys; from mixcli.llama import rpc; rpc.serve(sys.argv[1], 2)"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: listens(port))
    return worker


def listens(port: int) -> bool:
    """Return whether a connection to a port on loopback is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port on loopback that is not in use, and that the system does not choose for others before it is."""
    while True:
        port = random.SystemRandom().randrange(*BELOW_EPHEMERAL)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def ask(endpoints: Sequence[str], cases: Sequence[tuple[Path, Placement]]) -> list[Said]:
    """Let another process load every case without allocating, with workers as GPUs."""
    return [Said(**said) for said in _ask(endpoints, cases, [])]


def taken(
    endpoints: Sequence[str], cases: Sequence[tuple[Path, Placement]], expected: Sequence[Expected]
) -> list[list[tuple[str, int, int]]]:
    """Let another process really load every case; gives (device, planned bytes, bytes taken) for each device."""
    return [
        [(name, planned, real) for name, planned, real in rows] for rows in _ask(endpoints, cases, expected)
    ]


def _ask(
    endpoints: Sequence[str], cases: Sequence[tuple[Path, Placement]], expected: Sequence[Expected]
) -> list[Any]:
    wish = {
        "endpoints": list(endpoints),
        "cases": [(str(path), placement.to_json()) for path, placement in cases],
        "expected": list(expected),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.llama_workers"],
        input=json.dumps(wish),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def _loaded(path: Path, placement: Placement, expected: Expected) -> list[tuple[str, int, int]]:
    loaded = load(path, placement, expected, None)
    rows = [(one.device, one.planned, one.real) for one in loaded.comparisons]
    loaded.context.close()
    loaded.model.close()
    return rows


def main() -> None:
    wish = json.loads(sys.stdin.read())
    for endpoint in wish["endpoints"]:
        rpc.connect(endpoint)
    cases = [(Path(path), Placement.from_json(text)) for path, text in wish["cases"]]
    if wish["expected"]:
        found: list[Any] = [_loaded(*case, one) for case, one in zip(cases, wish["expected"], strict=True)]
    else:
        found = [asdict(no_alloc(*case)) for case in cases]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
