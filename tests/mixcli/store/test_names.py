"""How models are named: what people type, and what file names say."""

import pytest

from mixcli.errors import UsageError
from mixcli.store import gguf_names
from mixcli.store.catalog import catalog, entry
from mixcli.store.licenses import license_of
from mixcli.store.reference import Reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mixtral", Reference("mixtral")),
        ("mixtral:q4_k_m", Reference("mixtral", "Q4_K_M")),
        ("org/repo", Reference("org/repo")),
        ("org/repo:IQ4_XS", Reference("org/repo", "IQ4_XS")),
        ("org/repo@v2", Reference("org/repo", None, "v2")),
        ("org/repo:Q8_0@refs/pr/3", Reference("org/repo", "Q8_0", "refs/pr/3")),
        ("org/repo@v2:Q8_0", Reference("org/repo", "Q8_0", "v2")),
        ("org/repo/sub/m.Q4_0.gguf", Reference("org/repo", None, None, "sub/m.Q4_0.gguf")),
        ("https://huggingface.co/org/repo/", Reference("org/repo")),
        ("hf.co/org/repo:Q4_K_M", Reference("org/repo", "Q4_K_M")),
        (
            "https://huggingface.co/org/repo/resolve/main/m.Q4_0.gguf?download=true",
            Reference("org/repo", None, "main", "m.Q4_0.gguf"),
        ),
        (
            "https://huggingface.co/org/repo/blob/main/a/m.gguf",
            Reference("org/repo", None, "main", "a/m.gguf"),
        ),
    ],
)
def test_what_people_type(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":Q4_0",
        "org/",
        "a/b/c",
        "../x",
        "org/..",
        "org/re po",
        "org/repo@",
        "org/repo@../x",
        "org/\x1b[2J",
    ],
)
def test_what_names_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixtral-8x7b-instruct-v0.1.Q4_K_M.gguf", "Q4_K_M"),
        ("Mixtral-8x7B-Instruct-v0.1.i1-IQ2_XXS.gguf", "IQ2_XXS"),
        ("Mixtral-8x22B-Instruct-v0.1-Q4_K_M-00001-of-00005.gguf", "Q4_K_M"),
        ("model-q8_0.gguf", "Q8_0"),
        ("model.fp16.gguf", "F16"),
        ("ggml-model-bf16.gguf", "BF16"),
        ("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M"),
        ("q4_0-experiment.Q6_K.gguf", "Q6_K"),
        ("model.gguf", None),
        ("F1-racing-IQ.gguf", None),
    ],
)
def test_the_type_in_a_files_name(name: str, expected: str | None) -> None:
    assert gguf_names.file_type(name) == expected


def test_files_become_models_with_all_their_parts() -> None:
    files = [
        "m-Q4_K_M-00002-of-00002.gguf",
        "m-Q4_K_M-00001-of-00002.gguf",
        "m-Q8_0-00001-of-00003.gguf",  # two parts are missing
        "m-Q2_K.gguf",
        "mmproj-F16.gguf",
        "m-imatrix.gguf",
        "README.md",
    ]
    assert gguf_names.models(files, str) == [
        ("m-Q4_K_M-00001-of-00002.gguf", "m-Q4_K_M-00002-of-00002.gguf"),
        ("m-Q2_K.gguf",),
    ]


FAMILY = {
    "mixtral", "mixtral-base", "mixtral-8x22b", "mixtral-8x22b-base", "mistral-small-4", "mistral-large-3", "mistral-medium-3.5",
    *(f"ministral-3-{size}{kind}" for size in ("3b", "8b", "14b") for kind in ("", "-reasoning")), "mistral-small-3.2", "magistral-small",
    "devstral-small-2", "devstral-2", "codestral", "mathstral", "mistral-nemo", "ministral-8b", "mistral", "mistral-v0.2", "mistral-v0.1",
    "mistral-base", "dolphin-mixtral", "nous-hermes-2-mixtral", "dolphin-mixtral-8x22b", "wizardlm-2-8x22b", "openhermes", "zephyr",
    "dolphin-mistral-venice",
}  # fmt: skip
NOT_OPEN = {"codestral", "ministral-8b", "devstral-2", "mistral-medium-3.5"}


def test_every_entry_of_the_catalog_is_whole() -> None:
    assert {"demo", *FAMILY} == catalog().keys()
    for known in catalog().values():
        license = license_of(known.license)
        assert license.is_open == (known.name not in NOT_OPEN)
        assert "read them before" not in license.words, "a license needs words of its own"
        assert 0 < known.active <= known.parameters
        assert known.context >= 8192
        assert known.kind in {"base", "instruct"}
        assert known.builder == "demo" or (
            Reference.parse(known.gguf).is_repo and Reference.parse(known.safetensors).is_repo
        )


def test_a_typo_is_met_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean mixtral\?"):
        entry("mixtrall")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("apache-2.0", "Apache-2.0: open weights"),
        ("cc-by-nc-4.0", "other terms, not for commercial use"),
        ("my-own-license", "my-own-license: other terms"),
        ("mnpl", "MNPL-0.1: other terms, Mistral's non-production terms"),
        ("modified-mit", "more than 20 million dollars"),
        ("", "unknown; read"),
        (None, "unknown; read"),
    ],
)
def test_licenses_in_words(name: str | None, words: str) -> None:
    assert words in license_of(name).words
