"""Start Python child processes in isolation, with a clean environment and limits.

A child imports nothing from the folder that the user happens to be in (a json.py there would shadow the library), and gets only the variables that it can need: no token, key or password. Every one of them ends in bounded time, with all that it started.
"""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixcli.system.process_state import killed_by

MAX_OUTPUT = 1 << 26  # bytes of each stream that are read
POLL_INTERVAL = 0.1  # seconds between two looks at whether a child has ended that left its pipes to others, where the system does not tell
# fmt: off
NAMES = frozenset((
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "LANG", "LANGUAGE", "TZ", "NO_COLOR", "SYSTEMROOT",
    "MIXCLI_HOME", "MIXCLI_KV_DISK", "MIXCLI_SELFTEST_CRASH", "MIXCLI_DEBUG", "MIXCLI_PROFILE",
    "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "OLLAMA_MODELS", "LMSTUDIO_MODELS",
    "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__", "COVERAGE_PROCESS_START",
    "PYTHONHOME", "PYTHONUTF8", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED",
    "PYTHONMALLOC", "PYTHONFAULTHANDLER", "PYTHONNOUSERSITE", "PYTHONUSERBASE",
))
# what llama.cpp, its GPU libraries, the loader and the numeric libraries read
PREFIXES = (
    "LC_", "XDG_", "LD_", "DYLD_", "GGML_", "LLAMA_",
    "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "ROCM_", "HSA_", "AMD_", "GPU_", "VK_", "MTL_", "METAL_",
    "ONEAPI_", "SYCL_", "ZE_", "UR_",
    "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NUMBA_", "VECLIB_", "NVPL_",
    "MALLOC_", "GLIBC_", "ASAN_", "UBSAN_", "LSAN_",
)
# fmt: on
# the path at which a native library was built, before the place in it that ended the process
_BUILT_AT = re.compile(r"^/\S*/(?=[\w.-]+\.(?:c|cc|cpp|cu|h|m|metal):\d+: )")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSW", "CREDENTIAL", "AUTH")  # in a name: never passed on


def environment() -> dict[str, str]:
    """Return the variables that a child gets. Of PYTHONPATH only other absolute folders than the current one stay."""
    kept = {name: value for name, value in os.environ.items() if _is_needed(name)}
    if path := _import_path(os.environ.get("PYTHONPATH", "")):
        kept["PYTHONPATH"] = path
    return kept


def _is_needed(name: str) -> bool:
    return (name in NAMES or name.startswith(PREFIXES)) and not any(word in name for word in SECRET)


def _import_path(said: str) -> str:
    try:
        here = Path.cwd().resolve()
    except OSError:  # the current folder is gone
        here = None
    parts = (part for part in said.split(os.pathsep) if Path(part).is_absolute())
    return os.pathsep.join(part for part in parts if Path(part).resolve() != here)


def command(*arguments: str) -> list[str]:
    """Return the command of a child: `arguments` are -m MODULE or -c CODE, and what comes after."""
    return [sys.executable, "-P", *arguments]


@dataclass(frozen=True)
class ChildResult:
    """How a child ended: its exit code (negative: a signal), what it wrote, and whether it was ended for taking too long or writing too much."""

    code: int
    out: str
    err: str
    timed_out: bool = False

    @property
    def succeeded(self) -> bool:
        return self.code == 0 and not self.timed_out

    @property
    def last_words(self) -> str:
        """Return the last line on stderr, or how it ended."""
        said = self.err.strip().splitlines()
        if self.timed_out:
            return "timed out"
        if said:
            return _BUILT_AT.sub("", said[-1])
        return killed_by(-self.code) if self.code < 0 else f"exit code {self.code}"


def run(
    *arguments: str,
    seconds: float,
    stdin: str = "",
    variables: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    in_all: bool = False,
) -> ChildResult:
    """Run a child to its end and return what it wrote; whatever it started ends with it, and it ends with this process.

    It may run for `seconds`. With `on_line`, which gets each line of its output when it comes, it may be silent for so long, unless
    they are meant `in_all`.
    """
    ours, others = os.pipe()
    try:
        line = command("-m", "mixcli.system.lifeline", str(ours), *arguments)
        return finished(
            line,
            seconds=seconds,
            stdin=stdin,
            variables=variables,
            handles=(ours,),
            on_line=on_line,
            in_all=in_all,
        )
    finally:
        os.close(ours)
        os.close(others)


def finished(
    command: Sequence[str],
    *,
    seconds: float,
    stdin: str = "",
    variables: Mapping[str, str] | None = None,
    handles: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
    in_all: bool = False,
) -> ChildResult:
    """Run any program to its end, with these descriptors of ours open in it; it may outlive this process."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment(), **(variables or {})},
        start_new_session=True,
        pass_fds=handles,
    )
    try:
        out, err, whole = _talk(process, stdin.encode(), seconds, on_line, renews=not in_all)
    finally:
        _end(process)
    return ChildResult(
        process.returncode,
        out.decode("utf-8", "replace"),
        err.decode("utf-8", "replace"),
        timed_out=not whole,
    )


def _talk(
    process: "subprocess.Popen[bytes]",
    text: bytes,
    seconds: float,
    on_line: Callable[[str], None] | None,
    *,
    renews: bool,
) -> tuple[bytes, bytes, bool]:
    """Write and read until the child has ended; False when it did not do so in time, or wrote too much.

    With `on_line` the output is what is not a whole line yet, and every line begins the time again where that `renews` it.
    """
    deadline = time.monotonic() + seconds
    rest = memoryview(text)
    assert process.stdin and process.stdout and process.stderr
    into, found = (
        process.stdin.fileno(),
        {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()},
    )
    out, err = found.values()
    for number in (into, *found):
        os.set_blocking(number, False)
    waiting = set(found)
    with selectors.DefaultSelector() as selector, _end_of(process) as end:
        selector.register(into, selectors.EVENT_WRITE)
        for number in (*found, *end):
            selector.register(number, selectors.EVENT_READ)
        while waiting and process.poll() is None and max(len(out), len(err)) <= MAX_OUTPUT:
            if (left := deadline - time.monotonic()) <= 0:
                return bytes(out), bytes(err), False
            for key, _ in selector.select(left if end else min(left, POLL_INTERVAL)):
                if key.fd in found:
                    if not _read(key.fd, found[key.fd]):
                        selector.unregister(key.fd)
                        waiting.discard(key.fd)
                    if _handed_on(out, on_line) and renews:
                        deadline = time.monotonic() + seconds
                elif key.fd == into and not (rest := _written(into, rest)):
                    selector.unregister(into)
                    process.stdin.close()
    for number in waiting:
        _drain(number, found[number])
    _handed_on(out, on_line)
    if (
        max(len(out), len(err)) > MAX_OUTPUT
    ):  # it waits for a reader of its pipe, and would do so until the deadline
        return bytes(out), bytes(err), False
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return bytes(out), bytes(err), False
    return bytes(out), bytes(err), True


@contextlib.contextmanager
def _end_of(process: "subprocess.Popen[bytes]") -> Iterator[tuple[int, ...]]:
    """Yield the descriptor that can be read once a child has ended (Linux has one), so that no one needs to look; nothing elsewhere.

    To look now and then would interrupt a child that computes with all cores.
    """
    try:
        number = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        yield ()
        return
    try:
        yield (number,)
    finally:
        os.close(number)


def _drain(number: int, into: bytearray) -> None:
    """Read what is in a pipe now, which is all that counts, also where a grandchild holds it."""
    while len(into) <= MAX_OUTPUT and _read(number, into):
        pass


def _handed_on(out: bytearray, on_line: Callable[[str], None] | None) -> bool:
    """Take the whole lines out of what was read, for a caller that wants them one by one; True where there was one."""
    if on_line is None:
        return False
    end = out.rfind(b"\n") + 1
    lines = out[:end].decode("utf-8", "replace").splitlines()
    del out[:end]
    for line in lines:
        on_line(line)
    return bool(lines)


def _read(number: int, into: bytearray) -> int:
    """Read some of a pipe; 0 where there is nothing, or nothing more."""
    try:
        piece = os.read(number, 1 << 16)
    except OSError:
        return 0
    into += piece
    return len(piece)


def _written(into: int, text: memoryview) -> memoryview:
    """Write some of a text and return the rest; nothing where the child reads no more."""
    try:
        return text[os.write(into, text[: 1 << 16]) :] if text else text
    except BlockingIOError:
        return text
    except OSError:
        return text[:0]


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


__all__ = ["ChildResult", "command", "environment", "finished", "run"]
