"""Temperatures by maximum likelihood: found again where they are known, measured on other records, kept in a file."""

import random
from math import exp, log
from pathlib import Path

import pytest

from mixcli.batch.calibration import (
    MIN_EXAMPLES,
    Calibration,
    Example,
    Examples,
    fitted,
    read_calibration,
)
from mixcli.errors import UsageError
from mixcli.request.probability import Probability


def drawn(temperature: float, n: int, n_values: int = 3) -> list[Example]:
    """Answers of a model whose probabilities are right at this temperature."""
    chance = random.Random(7)
    examples = []
    for _ in range(n):
        weights = [exp(chance.gauss(0, 2)) for _ in range(n_values)]
        said = Probability(0.0, {str(i): one / sum(weights) for i, one in enumerate(weights)})
        true = said.tempered(temperature).values
        gold = chance.choices(list(true), list(true.values()))[0]
        example = Example.of(said, max(said.values, key=said.values.__getitem__), gold)
        assert example is not None
        examples.append(example)
    return examples


def examples_of(found: list[Example]) -> Examples:
    examples = Examples()
    for place, one in enumerate(found):
        examples.add(place, one)
    return examples


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_is_found_again_and_improves_what_it_was_not_fitted_to(temperature: float) -> None:
    fit = examples_of(drawn(temperature, 1200)).fit()
    assert fit is not None
    assert fit.temperature == pytest.approx(temperature, rel=0.15)
    assert fit.improves
    assert fit.loss[1] < fit.loss[0]
    assert fit.error[1] < fit.error[0]
    assert fit.kept == fit.temperature
    assert "held-out NLL" in fit.text()


def test_products_get_a_power_that_fits_how_often_they_are_right() -> None:
    chance = random.Random(3)
    found = []
    for _ in range(2000):
        log_p = -chance.expovariate(0.25)
        right = chance.random() < exp(log_p / 4)
        example = Example.of(Probability(exp(log_p), n_tokens=5), "a", "a" if right else "b")
        assert example is not None
        assert example.is_right == right
        found.append(example)
    assert fitted(found) == pytest.approx(4, rel=0.15)


def test_one_that_does_not_improve_is_told_and_not_kept() -> None:
    fit = examples_of(drawn(1.0, 25)).fit()
    assert fit is not None
    if not fit.improves:
        assert fit.kept == 1.0
        assert "does not improve" in fit.text()
    worse = type(fit)(1.3, 25, (0.5, 0.51), (0.1, 0.1))
    assert (worse.kept, worse.to_json()["temperature"]) == (1.0, 1.0)
    assert "does not improve" in worse.text()


def test_few_examples_fit_nothing() -> None:
    assert examples_of(drawn(2, MIN_EXAMPLES - 1)).fit() is None


def test_a_gold_value_that_the_field_cannot_have_is_no_example() -> None:
    assert Example.of(Probability(0.6, {"a": 0.6, "b": 0.4}), "a", "c") is None


def test_certainty_and_impossibility_have_finite_losses() -> None:
    for right in ("a", "b"):
        one = Example.of(Probability(1.0, {"a": 1.0, "b": 0.0}), "a", right)
        assert one is not None
        assert one.loss(1.0) < 100
        product = Example.of(Probability(1.0, n_tokens=2), "a", right)
        assert product is not None
        assert product.loss(1.0) < 100


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    fit = examples_of(drawn(2.5, 300)).fit()
    assert fit is not None
    path = tmp_path / "out.calibration.json"
    Calibration({}, "model x").save(path, {"team": fit})
    assert read_calibration(path) == Calibration({"team": fit.kept}, "model x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        *(
            f'{{"mixcli": "batch calibration", "fields": {{"a": {{"temperature": {number}}}}}}}'
            for number in ("0", "-1", "NaN", "1e-320", "1e308", "1" + "0" * 400, "true")
        ),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="is not a calibration"):
        read_calibration(path)


@pytest.mark.parametrize("number", [-0.5, float("nan"), float("inf"), 1e308, 10**400, True, "1", None])
def test_what_is_no_probability_is_none(number: object) -> None:
    assert Probability.of({"probability": number, "values": {"a": 1.0}}) is None
    assert Probability.of({"token_product": number, "n_tokens": 3}) is None
    said = Probability.of({"probability": 0.5, "values": {"a": 0.5, "b": number}})
    assert said is not None
    assert said.tempered(0.01).values == {"a": 1.0}


def test_tempering_keeps_the_order_and_sums_to_one() -> None:
    said = Probability(0.7, {"a": 0.7, "b": 0.2, "c": 0.1})
    hot = said.tempered(2.0)
    assert sum(hot.values.values()) == pytest.approx(1)
    assert hot.value == pytest.approx(hot.values["a"])
    assert sorted(hot.values, key=hot.values.__getitem__) == ["c", "b", "a"]
    assert Probability(0.25, n_tokens=3).tempered(2).value == pytest.approx(0.5)
    assert log(said.tempered(0.5).values["a"] / said.tempered(0.5).values["b"]) == pytest.approx(2 * log(3.5))
