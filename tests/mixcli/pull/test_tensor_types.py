"""What llama.cpp chose for a model that is not here is remembered, exactly, and only for that model."""

import subprocess
import sys
from dataclasses import replace

import pytest

from mixcli.pull.quant_choice import shapes_of_types
from mixcli.pull.remote_shape import source_of, unseen_shape, unseen_shapes
from mixcli.pull.tensor_types import CACHE, types_of_each
from mixcli.system import json_cache
from profiles.shape import ModelShape
from quantize import ggml
from quantize.errors import Unsupported
from quantize.recipe import choose_types
from tests.support.calls import calls_of
from tests.support.family import FAMILY

# layers whose down-projections get other types than one another
MODEL = replace(FAMILY["llama"], n_layer=8, n_embd=256, n_ff=512)
NAMES = ("Q4_K_M", "Q2_K", "Q8_0")


@pytest.mark.usefixtures("home")
def test_what_is_remembered_is_what_llama_cpp_chooses() -> None:
    first = unseen_shapes(MODEL, NAMES)
    again: dict[str, ModelShape] = {}
    calls = calls_of(lambda: again.update(unseen_shapes(MODEL, NAMES)), ggml.dry_run)
    assert calls == {"dry_run": 0}
    assert again == first
    source = source_of(MODEL)
    for name, types in types_of_each(source, NAMES).items():
        chosen = choose_types(source, name)
        assert list(types) == [chosen[tensor.name] for tensor in source.tensors]
    assert len({layer.types for layer in first["Q4_K_M"].layers}) > 1


@pytest.mark.usefixtures("home")
def test_llama_cpp_is_not_loaded_for_what_is_known() -> None:
    expected = unseen_shape(MODEL, "Q4_K_M")
    code = (
        "import sys; from mixcli.pull.remote_shape import unseen_shape; from tests.support.family import FAMILY\n"
        "from dataclasses import replace\n"
        "print(unseen_shape(replace(FAMILY['llama'], n_layer=8, n_embd=256, n_ff=512), 'Q4_K_M').bytes_weights)\n"
        "print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected.bytes_weights), "False"]


@pytest.mark.usefixtures("home")
def test_a_damaged_entry_counts_as_absent_and_another_model_has_its_own() -> None:
    expected = unseen_shape(MODEL, "Q4_K_M")
    ((key, entry),) = json_cache.load(CACHE).items()
    assert isinstance(entry, dict)
    for damaged in (entry["Q4_K_M"][:-2], "zz", entry["Q4_K_M"].replace("00", "ff"), 7, None):
        remember({key: {"Q4_K_M": damaged}})
        assert unseen_shape(MODEL, "Q4_K_M") == expected
    remember({key: []})
    assert unseen_shape(MODEL, "Q4_K_M") == expected
    assert unseen_shape(replace(MODEL, n_layer=4), "Q4_K_M").n_layer == 4
    assert len(json_cache.load(CACHE)) == 2


def remember(entries: dict[str, object]) -> None:
    assert json_cache.update(CACHE, lambda known: known.update(entries))


@pytest.mark.usefixtures("home")
def test_a_type_that_cannot_be_made_leaves_the_others_as_they_are() -> None:
    with pytest.raises(Unsupported):
        unseen_shapes(MODEL, ("Q8_0", "UNKNOWN"))
    shape = unseen_shape(MODEL, "Q8_0")
    sizes = {"Q4_K_M": None, "UD-Q4_K_XL": 1 << 20, "UNKNOWN": None}
    found = shapes_of_types(shape, sizes)
    assert list(found) == ["Q4_K_M", "UD-Q4_K_XL"]
    assert found["Q4_K_M"].layers == unseen_shape(MODEL, "Q4_K_M").layers
    assert found["UD-Q4_K_XL"].bytes_weights == 1 << 20
