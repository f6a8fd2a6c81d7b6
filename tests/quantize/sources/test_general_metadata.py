"""The general.* keys: what a folder says of itself, and folders that say nonsense."""

from pathlib import Path
from typing import Any

import pytest

from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.general_metadata import general_metadata
from quantize.sources.model_source import model_source
from tests.quantize.vocab.llama_vocab import loaded, write_vocabulary
from tests.support.checkpoints import write_checkpoint, write_json
from tests.support.waiting import ends_within

TINY: dict[str, Any] = {"n_layer": 1, "n_embd": 8, "n_ff": 8, "n_expert": 2}


def general(folder: Path) -> dict[str, Any]:
    metadata = model_source(open_checkpoint(folder)).metadata
    with loaded(write_vocabulary(folder / "v.gguf", metadata)):  # llama.cpp takes it, whatever it says
        return {k.removeprefix("general."): v.value for k, v in metadata.items() if k.startswith("general.")}


def test_the_name_of_a_folder_is_taken_apart(tmp_path: Path) -> None:
    found = general(write_checkpoint(tmp_path / "Mixtral-8x7B-Instruct-v0.1", **TINY))
    assert (found["name"], found["basename"]) == ("Mixtral 8x7B Instruct v0.1", "Mixtral")
    assert (found["finetune"], found["version"]) == ("Instruct", "v0.1")


def test_a_snapshot_of_the_hub_cache_is_named_by_its_repository(tmp_path: Path) -> None:
    place = tmp_path / "models--mistralai--Mistral-7B-Instruct-v0.3" / "snapshots" / ("0f" * 20)
    folder = write_checkpoint(place, **TINY)
    write_json(folder / "generation_config.json", {"temperature": 0.5})
    found = general(folder)
    assert (found["name"], found["version"]) == ("Mistral 7B Instruct v0.3", "v0.3")
    assert found["sampling.temp"] == 0.5


def test_a_model_card_says_more(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **TINY)
    card = "license: apache-2.0\nlanguage: [fr, en]\nbase_model: mistralai/Mistral-7B-v0.1\nmodel_name: Mine"
    (folder / "README.md").write_text(f"---\n{card}\n---\ntext")
    write_json(
        folder / "generation_config.json", {"top_k": 40, "temperature": 0.5, "repetition_penalty": 1.25}
    )
    found = general(folder)
    assert (found["name"], found["license"], found["languages"]) == ("Mine", "apache-2.0", ["fr", "en"])
    assert found["base_model.0.repo_url"] == "https://huggingface.co/mistralai/Mistral-7B-v0.1"
    assert (found["sampling.top_k"], found["sampling.temp"], found["sampling.penalty_repeat"]) == (
        40,
        0.5,
        1.25,
    )


@pytest.mark.parametrize(
    "card",
    [
        "model_name: [unclosed",
        "model_name: 5\nlicense: 7\ntags: [1, 2, x]\nlanguage: [no, 3]",
        "base_model: {a: b}\ndatasets: 5",
        "base_model: [null, 3]",
        "- a\n- list",
        "model_name: !!python/object/apply:os.system [exit 1]",
        "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntags: [*c, *c]",
        "\x00\x01",
    ],
)
def test_a_card_of_nonsense_costs_nothing_but_the_card(card: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "folder", **TINY)
    (folder / "README.md").write_text(f"---\n{card}\n---\n")
    found = general(folder)
    assert isinstance(found["name"], str) and found["architecture"] == "llama"


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"temperature": "hot"}', '{"top_k": 1e99}', '{"top_k": [1]}', "5"]
)
def test_a_generation_config_of_nonsense_costs_nothing(text: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "folder", **TINY)
    (folder / "generation_config.json").write_text(text)
    assert general(folder)["name"].lower() == "folder"


BOMB = "---\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n" + "".join(
    f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "card",
    [
        BOMB + "tags: *x11\n---\n",
        BOMB + "model_name: *x11\n---\n",
        BOMB + "license: *x11\n---\n",
        "---\nmodel_name: " + "n" * 500_000 + "\n---\n",
        "---\n" + "a: [" * 100_000 + "\n---\n",
        "---\nmodel_name: x\n---\n" + "y" * (2 << 20),
        "version https://git-lfs.github.com/spec/v1\n",
    ],
    ids=["tags", "name", "license", "long", "deep", "huge", "pointer"],
)
def test_a_hostile_card_costs_its_information_and_nothing_else(tmp_path: Path, card: str) -> None:
    folder = write_checkpoint(tmp_path / "Tiny", n_layer=1, n_embd=8, n_ff=8, n_expert=2, tokenizer=None)
    (folder / "README.md").write_text(card)
    with ends_within():
        found = general_metadata(open_checkpoint(folder), [])
    assert found["general.architecture"].value == "llama"
    assert all(len(repr(value.value)) < 1 << 12 for value in found.values())
