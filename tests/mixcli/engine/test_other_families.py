"""Models of other families write the tokens that llama_cpp.Llama writes."""

from pathlib import Path

import pytest
from llama_cpp import Llama

from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement
from tests.support import family_gguf

PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1)
N_TOKENS = 24


def written_by_the_bindings(path: Path, prompt: list[int]) -> list[int]:
    llama = Llama(
        str(path), n_ctx=256, n_batch=64, n_threads=1, n_threads_batch=1, flash_attn=True, verbose=False
    )
    tokens = llama.generate(prompt, temp=0.0, repeat_penalty=1.0)
    found = [next(tokens) for _ in range(N_TOKENS)]
    llama.close()
    return found


@pytest.mark.parametrize("family", family_gguf.FAMILIES)
def test_greedy_tokens_are_those_of_the_bindings(family: str, tmp_path: Path) -> None:
    path = family_gguf.write(family, tmp_path / "tiny.gguf")
    prompt = [1, 70, 301, 302, 150, 310, 311, 320]
    with Model.load(path, PLACEMENT) as model:
        engine = Engine(model, Context(model, PLACEMENT))
        sampling = SamplingParams(temperature=0, max_tokens=N_TOKENS, min_tokens=N_TOKENS)
        engine.add(Request("one", tuple(prompt), sampling))
        found: list[int] = []
        while engine.has_work:
            found += [token for output in engine.step() for token in output.token_ids]
        engine.check()
    assert found == written_by_the_bindings(path, prompt)
    assert len(set(found)) > 4, "a model that repeats one token shows nothing"
