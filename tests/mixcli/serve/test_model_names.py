"""Models by name: with and without the quant, in any case, by alias; what no model has is refused with a hint."""

import pytest

from mixcli.errors import UsageError
from mixcli.serve.model_names import ServedModel, ServedModels, aliases_by_label

DEMO_4, DEMO_8 = ServedModel("demo:Q4_K_M", aliases=("gpt-4o",)), ServedModel("demo:Q8_0")
FILE, HUB = ServedModel("/models/Tiny.gguf"), ServedModel("org/Mixtral-8x7B-GGUF:Q5_K_M")
SERVED = ServedModels([DEMO_8, DEMO_4, FILE, HUB])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("demo:Q4_K_M", DEMO_4),
        ("DEMO:q4_k_m", DEMO_4),
        ("demo", DEMO_8),  # the first that was named
        ("GPT-4o", DEMO_4),
        ("/models/Tiny.gguf", FILE),
        ("tiny.gguf", FILE),
        ("tiny", FILE),
        ("org/Mixtral-8x7B-GGUF", HUB),
        ("Mixtral-8x7B-GGUF", None),
        ("dem", None),
        ("", None),
    ],
)
def test_a_name_is_found_as_it_is_listed_or_shorter(name: str, model: ServedModel | None) -> None:
    assert SERVED.find(name) is model


def test_an_unknown_name_gets_a_404_with_the_nearest_and_all() -> None:
    refusal = SERVED.unknown("demo:Q4_K_S")
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")
    assert "did you mean demo:Q4_K_M?" in refusal.message
    assert "demo:Q8_0, demo:Q4_K_M, /models/Tiny.gguf" in refusal.message
    assert "did you mean" not in SERVED.unknown("claude").message
    assert len(SERVED.unknown("x" * 1_000_000).message) < 1000


def test_a_long_list_is_cut() -> None:
    many = ServedModels([ServedModel(f"model-{n}:Q8_0") for n in range(50)])
    assert "and 30 more" in many.unnamed().message


def test_aliases_belong_to_served_models_and_to_one_each() -> None:
    assert aliases_by_label(["a=demo", "b=demo:q8_0", "c=tiny"], SERVED) == {
        "demo:Q8_0": ("a", "b"),
        "/models/Tiny.gguf": ("c",),
    }
    for wrong, words in (
        ("a", "use NAME=MODEL"),
        ("=demo", "use NAME=MODEL"),
        ("a=", "use NAME=MODEL"),
        ("a\n=demo", "use NAME=MODEL"),
        ("x" * 200 + "=demo", "use NAME=MODEL"),
        ("a=mistral", "mistral is not served"),
        ("DEMO:Q8_0=tiny", "is taken"),
    ):
        with pytest.raises(UsageError, match=words):
            aliases_by_label([wrong], SERVED)
    with pytest.raises(UsageError, match="is taken"):
        aliases_by_label(["a=demo", "A=tiny"], SERVED)


def test_an_alias_does_not_take_the_name_of_another_model() -> None:
    served = ServedModels([ServedModel("/m/a.gguf"), ServedModel("/m/b.gguf"), DEMO_4, DEMO_8])
    for taken in ("b.gguf=a.gguf", "B=a.gguf", "demo=a.gguf", "demo:q4_k_m=demo:Q8_0"):
        with pytest.raises(UsageError, match="is taken; choose another"):
            aliases_by_label([taken], served)
    assert aliases_by_label(["demo=demo:Q8_0"], served) == {"demo:Q8_0": ("demo",)}
