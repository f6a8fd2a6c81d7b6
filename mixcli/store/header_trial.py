"""Let llama.cpp read a GGUF header in a process of its own: what it would allocate, or one sentence why it cannot load the file."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mixcli.errors import IntegrityError, NotReachable
from mixcli.system import python_child
from mixcli.system.measurements import TrialAnswer, TrialBuffers, TrialOrder
from profiles.placement import Placement
from quantize.file_layout import header_bytes, pad
from quantize.source import Value, text, u32
from quantize.sources.gguf_header import GgufHeader
from quantize.sources.lazy_array import LazyArray

TIME_LIMIT = 120.0  # seconds by the clock; a trial takes a fraction of one where the machine is idle
MAX_WORDS = 200  # characters of what llama.cpp said
_ASSERTION = re.compile(r"(?:GGML_ASSERT\(.*?\) failed|terminate called .*|what\(\): .*)")


def try_header(
    header: GgufHeader,
    name: str,
    placements: Sequence[Placement] = (),
    gpus: Sequence[str] = (),
    *,
    with_vocabulary: bool = True,
) -> tuple[TrialBuffers, ...]:
    """Return the buffers that llama.cpp would allocate for a whole model, given by its header, in each of some placements; without any it only reads it.

    `gpus` are the names of the plan's GPUs. The result is empty where they are not here and no stand-ins can be made. `with_vocabulary` reads
    the vocabulary too, which takes longer. Raises IntegrityError with one sentence where llama.cpp refuses the header or crashes on it,
    NotReachable for a worker that does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="mixcli-header-") as folder:
        file = f"{Path(name).name[:100] or 'model'}"
        hollow, vocabulary = Path(folder, "hollow"), Path(folder, "vocabulary")
        for place in (hollow, vocabulary):
            place.mkdir()
        _write_hollow(header, hollow / file)
        if with_vocabulary:
            (vocabulary / file).write_bytes(header_bytes(_own_keys(header), ()))
        order = TrialOrder(
            hollow / file,
            vocabulary / file if with_vocabulary else None,
            tuple(placements),
            tuple(gpus),
        )
        done = python_child.run("-m", "mixcli.llama.header_trial", seconds=TIME_LIMIT, stdin=order.to_json())
    if done.succeeded:
        return TrialAnswer.from_json(done.out).buffers
    if done.code == NotReachable.exit_code:
        raise NotReachable(done.last_words)
    if done.code > 0 and not done.timed_out:
        raise IntegrityError(done.last_words[:MAX_WORDS])
    said = _ASSERTION.findall(done.err)
    how = said[-1][:MAX_WORDS] if said else done.last_words if done.timed_out else f"signal {-done.code}"
    raise IntegrityError(
        f"{name} cannot be loaded: llama.cpp crashed on its header ({how}); the file is damaged or made for another version"
    )


def _own_keys(header: GgufHeader) -> dict[str, Value]:
    """Return the metadata of one file that stands for all shards."""
    return {
        key: value
        for key, value in header.metadata.items()
        if not key.startswith("split.") and key != "general.alignment"
    }


def _write_hollow(header: GgufHeader, path: Path) -> None:
    """Write a model's header without its vocabulary, over data that is a hole."""
    keys = {key: value for key, value in _own_keys(header).items() if not key.startswith("tokenizer.")}
    tokens = header.get("tokenizer.ggml.tokens")
    keys["tokenizer.ggml.model"] = text("none")
    keys[f"{header.architecture}.vocab_size"] = u32(len(tokens) if isinstance(tokens, LazyArray) else 0)
    entries, at = [], 0
    for tensor in header.tensors:
        entries.append((tensor.name, tensor.type, tensor.shape, at))
        at += pad(tensor.n_bytes, 32)
    start = header_bytes(keys, entries)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + at)
