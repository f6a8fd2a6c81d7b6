"""A cache of latents: texts share their beginnings in it, and come back from disk, as with any other cache."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.engine.engine import Engine
from mixcli.engine.kv_store import KvStore
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement
from tests.support.family import write_small
from tests.support.greedy import assert_same_up_to_ties, run, tokens_of
from tests.support.models import PLACEMENT

SMALL = replace(PLACEMENT, n_ctx=512, n_ubatch=64)
PROMPT = tuple(5 + i * 7 % 300 for i in range(150))
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module", params=["mistral4, gate and up in one", "deepseek2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_small(tmp_path_factory.mktemp("latent") / "m.gguf", request.param)
    with Model.load(path, SMALL) as model:
        yield model
        gc.collect()  # contexts first


def answered(engine: Engine, prompt: tuple[int, ...], *, persist: bool = False) -> tuple[list[int], int]:
    """Return the greedy tokens and how many tokens of the prompt were in the cache."""
    outputs = run(engine, [Request("r", prompt, GREEDY, persist=persist)])["r"]
    assert outputs[-1].usage is not None
    return tokens_of(outputs), outputs[-1].usage.n_cached


@pytest.mark.parametrize("flash", [True, False])
def test_a_text_is_the_same_after_a_shared_beginning_and_from_disk(
    model: Model, tmp_path: Path, *, flash: bool
) -> None:
    placement: Placement = replace(SMALL, flash_attn=flash)
    other = (*PROMPT[:120], *range(20, 50))
    expected, _ = answered(Engine(model, Context(model, placement)), other)
    store = KvStore(tmp_path, "key", 1 << 24)
    first = Engine(model, Context(model, placement), store)
    answered(first, PROMPT, persist=True)  # the answer stays in the cache with its prompt
    found, n_cached = answered(first, other)
    assert n_cached == 120
    assert_same_up_to_ties(model, other, expected, found)
    first.close()
    second = Engine(model, Context(model, placement), KvStore(tmp_path, "key", 1 << 24))
    found, n_cached = answered(second, other)
    assert n_cached == 120
    assert_same_up_to_ties(model, other, expected, found)
