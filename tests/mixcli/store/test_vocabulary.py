"""Which smaller models have the vocabulary of a model: by the headers of those that are here, by the catalog for the others."""

import json
from pathlib import Path

import pytest

from mixcli.store.catalog import catalog
from mixcli.store.vocabulary import smaller_in_catalog
from quantize.source import Value, texts, u32
from tests.conftest import Runner
from tests.support import small_gguf

N_MORE = 4  # experts


def larger() -> bytes:
    """A GGUF of the same vocabulary with more experts."""
    shapes = {
        name: (N_MORE, *shape[1:]) if "_exps" in name or "gate_inp" in name else shape
        for name, shape in small_gguf.shapes().items()
    }
    return small_gguf.gguf(keys=small_gguf.metadata(**{"llama.expert_count": u32(N_MORE)}), tensors=shapes)


def tokens_with(**changed: str) -> dict[str, Value]:
    known = small_gguf.vocabulary(small_gguf.N_VOCAB)["tokenizer.ggml.tokens"].value
    return {"tokenizer.ggml.tokens": texts([changed.get(token, token) for token in known])}


@pytest.mark.parametrize(
    ("changed", "is_same"), [({}, True), ({"</s>": "<end>"}, True), ({"t0": "other"}, False)]
)
def test_what_is_here_is_compared_by_its_header(
    mixcli: Runner, tmp_path: Path, changed: dict[str, str], is_same: bool
) -> None:
    files = {
        "large": larger(),
        "small": small_gguf.gguf(keys=small_gguf.metadata(**tokens_with(**changed))),
    }
    for name, content in files.items():
        path = small_gguf.write(tmp_path / f"{name}-F16.gguf", content)
        assert mixcli("import", str(path), "--name", name).returncode == 0
    smaller = {name: json.loads(mixcli("show", name, "--json").stdout)["smaller"] for name in files}
    assert smaller == {"large": ["small:F16"] if is_same else [], "small": []}


def test_a_model_of_the_catalog_is_shown_with_what_the_catalog_knows(mixcli: Runner, tmp_path: Path) -> None:
    path = small_gguf.write(tmp_path / "m-F16.gguf", small_gguf.gguf())
    assert mixcli("import", str(path), "--name", "ministral-3-8b").returncode == 0
    shown = mixcli("show", "ministral-3-8b").stdout
    assert "smaller, same vocabulary\tministral-3-3b\n" in shown
    assert "images\tthe model sees them, but here it reads text only\n" in shown


def test_the_catalog_names_one_of_each_size() -> None:
    names = (
        "mixtral",
        "mixtral-8x22b",
        "mistral-small-4",
        "mistral-nemo",
        "mistral",
        "mixtral-8x22b-base",
        "demo",
    )
    assert {name: smaller_in_catalog(catalog()[name]) for name in names} == {
        "mixtral": ("mistral-v0.2",),
        "mixtral-8x22b": ("mathstral", "codestral"),
        "mistral-small-4": ("ministral-3-3b", "ministral-3-8b", "ministral-3-14b"),
        "mistral-nemo": ("ministral-8b",),
        "mistral": (),
        "mixtral-8x22b-base": ("mixtral-base",),
        "demo": (),
    }  # fmt: skip
