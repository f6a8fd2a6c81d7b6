"""Recipes: the same bytes from JSON and from the GGUF itself, and a refusal for what does not belong together."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import Importance
from quantize.conversion import Options, convert
from quantize.errors import QuantizeError
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.imatrix import read_imatrix
from quantize.recipe import choose_types
from quantize.sources.gguf_source import open_gguf
from quantize.tailor.recipe_file import TailoredRecipe, read_recipe
from tests.support.tiny_models import tiny_model


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, TailoredRecipe]:
    """Return a model, its importance matrix, and a recipe for both."""
    source = tiny_model(tmp_path / "m.gguf", file_type="BF16")
    model = open_gguf(source)
    random = np.random.default_rng(0)
    entries = {
        one.name: Importance(random.random((4, one.shape[-1]), np.float32), np.full(4, 9, np.int64))
        for one in model.tensors
        if "_exps" in one.name
    }
    write_imatrix(tmp_path / "m.imatrix.gguf", entries, 512, "text")
    imatrix = read_imatrix(tmp_path / "m.imatrix.gguf")
    types = choose_types(model, "Q3_K_M", imatrix=True) | {"blk.1.ffn_up_exps.weight": T.Q6_K}
    recipe = TailoredRecipe(types, "Q3_K_M", imatrix.name, imatrix.digest, "a test")
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    return source, tmp_path / "m.imatrix.gguf", recipe


def test_a_recipe_is_repeated_byte_for_byte(made: tuple[Path, Path, TailoredRecipe], tmp_path: Path) -> None:
    source, imatrix, recipe = made
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    convert(source, first, Options(recipe=tmp_path / "recipe.json", imatrix=imatrix))
    renamed = imatrix.rename(tmp_path / "other-name.gguf")
    convert(source, second, Options(recipe=first, imatrix=renamed, n_threads=3))
    assert first.read_bytes() == second.read_bytes()
    assert read_recipe(first) == recipe
    read = gguf.GGUFReader(first)
    assert {one.name: T(one.tensor_type) for one in read.tensors} == recipe.types
    assert read.fields["quantize.imatrix.file"].contents() == "m.imatrix.gguf"
    # what is made of the file without the recipe does not have it
    convert(first, tmp_path / "third.gguf", Options(output_type="Q2_K", allow_requantize=True))
    assert "mixcli.recipe" not in gguf.GGUFReader(tmp_path / "third.gguf").fields
    convert(first, tmp_path / "copy.gguf", Options())
    assert read_recipe(tmp_path / "copy.gguf") == recipe


def test_what_does_not_belong_together_is_refused(
    made: tuple[Path, Path, TailoredRecipe], tmp_path: Path
) -> None:
    source, imatrix, _ = made
    recipe, target = tmp_path / "recipe.json", tmp_path / "out.gguf"

    def fails(message: str, code: int, of: Path = source, **options: object) -> None:
        with pytest.raises(QuantizeError, match=message) as error:
            convert(of, target, Options(**{"recipe": recipe, "imatrix": imatrix, **options}))
        assert error.value.exit_code == code
        assert not target.exists()

    fails("needs the importance matrix m.imatrix.gguf .*; pass it with --imatrix", 2, imatrix=None)
    fails("--pure has no effect with --recipe", 2, pure=True)
    fails("remove Q4_K_M, or --recipe", 2, output_type="Q4_K_M")
    fails(
        "for another model: .* are in one of the two only",
        2,
        of=tiny_model(tmp_path / "dense.gguf", n_expert=0),
    )
    fails("has no recipe: it is not a tailored file", 5, recipe=source)
    other = tmp_path / "other.gguf"
    write_imatrix(other, {"blk.0.attn_q.weight": Importance(np.ones((1, 256), np.float32), np.array([1]))}, 1, "")  # fmt: skip
    fails("other.gguf is not the importance matrix of the recipe", 2, imatrix=other)
    data = json.loads(recipe.read_text())
    for change, message in (
        ({"format": 2}, "is not a recipe .its format is not 1"),
        ({"types": []}, "types is not a JSON object"),
        ({"types": {"output.weight": 7}}, "output.weight. is not a string"),
        ({"imatrix": None}, "imatrix is not a JSON object"),
        ({"imatrix": {}}, "name. is missing"),
        ({"file_type": "Q9"}, "is not a recipe .*quant Q9"),
        (
            {"types": {**data["types"], "output.weight": "Q9"}},
            "is not a recipe .*output.weight.: Q9 is not a tensor type",
        ),
    ):
        recipe.write_text(json.dumps({**data, **change}))
        fails(message, 5)
    for text in ("{" * 5000, "[" * 200_000, "", "5", json.dumps(data)[:-1]):
        recipe.write_text(text)
        fails("is not a recipe .(not JSON|it is not a JSON object)", 5)
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        recipe.write_text(json.dumps(data), encoding)
        fails("recipe.json is UTF-16 or UTF-32 text, but JSON must be UTF-8; save it as UTF-8", 5)
    recipe.write_text(json.dumps(data), "utf-8-sig")
    assert read_recipe(recipe).to_json() == json.dumps(data, separators=(",", ":"))
    for name in ("output_norm.weight", "blk.0.ffn_gate_inp.weight"):
        recipe.write_text(json.dumps({**data, "types": {**data["types"], name: "Q4_K"}}))
        fails(f"the recipe has Q4_K for {name}, which stays F32", 2)
