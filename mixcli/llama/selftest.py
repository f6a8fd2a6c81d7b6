"""Test once in a child process whether llama.cpp can compute on this CPU, and remember the result.

A build for another machine, or by a compiler with a bug, dies with a signal at the first matrix product (GCC 12's AMX kernels do).
Such kernels belong to the buffer types that repack weights; without them (`repack` off) the plain code runs. So a tiny generated
model is computed with repacking in a child; when the child dies, repacking stays off for this library on this CPU.

Run as a module, this is the child: `python -m mixcli.llama.selftest repack|plain`.
"""

import hashlib
import os
import platform
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mixcli.errors import MixcliError
from mixcli.system import child_limits, json_cache, python_child
from profiles.placement import Placement
from quantize import bindings

CRASH_SWITCH = "MIXCLI_SELFTEST_CRASH"  # "1": the child with repacking dies; for tests
TIME_LIMIT = 120  # seconds for one child; it takes about one
TINY = Placement(n_ctx=256, n_batch=64, n_ubatch=64, n_threads=2, n_threads_batch=2)
NOTE = (
    "llama.cpp's repacked kernels crash on this CPU, so they are disabled (slower prefill); "
    "a build without AMX fixes this: see `make setup` in the source tree"
)


def checked(placement: Placement) -> tuple[Placement, str | None]:
    """Return the placement that is safe on this machine, and a note the first time that something had to be switched off.

    Raises MixcliError when llama.cpp cannot compute here in any way.
    """
    if not placement.repack:
        return placement, None
    key = _machine_key()
    works = json_cache.load("selftest").get(key)
    note = None
    if not isinstance(works, bool):
        works = _survives("repack")
        if not works:
            if not _survives("plain"):
                raise MixcliError(
                    "the installed llama.cpp crashes on this CPU; reinstall llama-cpp-python on this machine"
                )
            note = NOTE
        verdict = works
        json_cache.update("selftest", lambda found: found.update({key: verdict}))
    return replace(placement, repack=works), note


def _machine_key() -> str:
    """Name this library on this CPU: file sizes and times, the CPU's flags, and the test switch."""
    parts = [
        f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}"
        for f in sorted(bindings.library_folder().iterdir())
    ]
    parts += [_cpu(), os.environ.get(CRASH_SWITCH, "")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _survives(mode: str) -> bool:
    return python_child.run("-m", "mixcli.llama.selftest", mode, seconds=TIME_LIMIT).succeeded


def main(mode: str) -> None:
    """Compute the tiny model in the child, with or without repacking; the exit code, or the signal, is the answer."""
    child_limits.no_core_dump()
    if mode == "repack" and os.environ.get(CRASH_SWITCH) == "1":
        os.kill(os.getpid(), signal.SIGSEGV if os.name == "posix" else signal.SIGTERM)
    sys.exit(not computes(replace(TINY, repack=mode == "repack")))


def computes(placement: Placement) -> bool:
    """Compute the tiny model in this process, which may die of it; False when not all logits are finite."""
    import numpy as np

    from mixcli.llama.batch import Batch
    from mixcli.llama.context import Context
    from mixcli.llama.model import Model
    from mixcli.llama.tiny_model import write_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        write_tiny_model(path)
        model = Model.load(path, placement)
        with model, Context(model, placement) as context:
            batch = Batch(64)
            for start, tokens in (
                (0, range(64)),
                (64, [1]),
            ):  # both shapes: matrix by matrix, matrix by vector
                batch.clear()
                batch.extend(tokens, start, 0, n_logits=1)
                context.decode(batch)
                if not np.isfinite(context.logits()).all():
                    return False
    return True


if __name__ == "__main__":
    main(sys.argv[1])
