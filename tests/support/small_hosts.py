"""Small models of random weights behind a host and a port: a base model, and one for embeddings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from mixcli.host.protocol.host_name import HostName
from profiles.placement import Placement
from quantize.source import Value, u32
from tests.support.hosts import N_THREADS, held
from tests.support.ports import Port, served
from tests.support.synthetic import resized, shape_named, write_model

PLACEMENT = Placement(n_ctx=512, n_threads=N_THREADS, n_threads_batch=N_THREADS)
BASE: Mapping[str, Value | None] = {"tokenizer.chat_template": None}
EMBEDDER: Mapping[str, Value | None] = {"llama.pooling_type": u32(3)}


@contextmanager
def served_small(factory: pytest.TempPathFactory, changes: Mapping[str, Value | None]) -> Iterator[Port]:
    """Serve a model of one layer, with these changes of its metadata, in a home of its own."""
    folder = factory.mktemp("small")
    path = write_model(folder / "tiny.gguf", resized(shape_named("mid", 1), 512, 256), changes=changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(folder / "home"))
        with (
            held(HostName(path.resolve(), "tiny:Q4_K_M", "{}"), PLACEMENT) as host,
            served(host.name.socket) as port,
        ):
            yield port
