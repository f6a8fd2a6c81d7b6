"""Models, engines, and the grammars of a model's vocabulary."""

import pytest

from mixcli.engine.constraint import Grammars
from mixcli.llama.model import Model
from tests.support.models import make_engine, smol, smol_path, vocab_model

__all__ = ["grammars", "make_engine", "smol", "smol_path", "vocab_model"]


@pytest.fixture(scope="module")
def grammars(smol: Model) -> Grammars:
    return Grammars(smol.vocab)
