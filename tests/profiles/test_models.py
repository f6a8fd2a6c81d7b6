"""Models that are known before they are downloaded: the dimensions of config.json make the tensors of the file."""

from math import prod

import pytest

from profiles.models import known_models


# billions of parameters of the text model, as the model cards have them
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mixtral", 46.7), ("mixtral-8x22b", 140.6), ("mistral", 7.25), ("codestral", 22.2), ("ministral-8b", 8.02), ("mistral-nemo", 12.2),
        ("mistral-small-3.2", 23.6), ("ministral-3-3b", 3.4), ("ministral-3-8b", 8.5), ("ministral-3-14b", 13.5), ("devstral-2", 125.0),
    ],
)  # fmt: skip
def test_the_tensors_have_the_parameters_of_the_model_card(name: str, parameters: float) -> None:
    total = sum(prod(shape) for _, shape in known_models()[name].tensors())
    assert total / 1e9 == pytest.approx(parameters, abs=0.06)
