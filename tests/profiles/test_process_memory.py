"""What the host process takes beside what llama.cpp reports at a load, against what the system says of real processes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from profiles.layout import on_host
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.memory import BYTES_PROCESS, bytes_logits
from profiles.placement import OUTPUTS, Placement
from profiles.shape import BYTES_TEKKEN, ModelShape, model_shape
from tests.support import small_gguf

RESIDENT = "def resident():\n    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
# of the address space: the rows in the compute buffer are there from the load, and resident only once they are used
RESERVED = "def reserved():\n    return int(open('/proc/self/statm').read().split()[5]) * 4096\n"
ROWS = (
    RESERVED
    + """
import sys
from pathlib import Path
from mixcli.llama.batch import Batch; from mixcli.llama.model import Model; from mixcli.llama.context import Context
from profiles.placement import Placement
placement = Placement(n_ctx=512, n_batch=512, n_ubatch=512, n_threads=1, n_threads_batch=1)
with Model.load(Path(sys.argv[1]), placement) as model, Context(model, placement) as context:
    for n_logits in (placement.n_sequences, placement.n_outputs):
        for _ in range(2):
            batch = Batch(512)
            batch.extend(range(placement.n_outputs), 0, 0, n_logits=n_logits)
            context.clear()
            context.decode(batch)
        print(reserved())
"""
)
TEKKEN = (
    RESIDENT
    + """
import base64, ctypes, gc, json, sys
from mixcli.prompts.tekken import Tekken
file = json.load(open(sys.argv[1]))
n, first = file["config"]["default_vocab_size"], file["config"]["default_num_special_tokens"]
ids = {base64.b64decode(one["token_bytes"]): i + first for i, one in enumerate(file["vocab"][: n - first])}
del file
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
before = resident()
tekken = Tekken(ids)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
print(len(ids), resident() - before)
"""
)
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def said_by(code: str, path: Path) -> list[int]:
    return [
        int(word)
        for word in subprocess.check_output([sys.executable, "-c", code, str(path)], text=True).split()
    ]


def shape() -> ModelShape:
    sizes = {"llama.block_count": 1, "llama.embedding_length": 64, "llama.attention.head_count": 4}
    named = {"general.architecture": "llama", "tokenizer.ggml.pre": "tekken", **sizes}
    return model_shape(
        named, [("token_embd.weight", 64 * 1000, 128_000, "F16"), ("blk.0.attn_q.weight", 64, 128, "F16")]
    )


def test_the_process_has_its_tokenizer_and_the_rows_that_come_later() -> None:
    one = shape()
    assert one.bytes_tokenizer == BYTES_TEKKEN * 1000
    for n_ubatch, later in ((512, OUTPUTS - 64), (32, 0), (128, 64)):
        placement = Placement(n_ubatch=n_ubatch)
        (host,) = accounts(one, Machine(0, 1), placement, on_host(one, 0))
        assert host.process == BYTES_PROCESS + 1000 * BYTES_TEKKEN + bytes_logits(one, later)


@only_linux
def test_rows_of_logits_take_what_the_ledger_says(tmp_path: Path) -> None:
    n_vocab = 40_000
    path = small_gguf.write(tmp_path / "wide.gguf", small_gguf.gguf(4 * small_gguf.N_EMBD * n_vocab))
    before, after = said_by(ROWS, path)
    expected = 4 * n_vocab * (OUTPUTS - Placement().n_sequences)
    assert 0.99 * expected < after - before < 1.01 * expected + (1 << 20)


@only_linux
def test_tekkens_tables_take_what_the_ledger_says() -> None:
    spec = importlib.util.find_spec("mistral_common")
    assert spec and spec.origin
    path = min((Path(spec.origin).parent / "data").glob("tekken*.json"))
    n_tokens, taken = said_by(TEKKEN, path)
    assert 0.8 * BYTES_TEKKEN * n_tokens < taken < 1.1 * BYTES_TEKKEN * n_tokens
