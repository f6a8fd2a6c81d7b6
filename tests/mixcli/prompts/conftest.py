"""Models and engines."""

from tests.support.models import make_engine, smol, smol_path, vocab_model

__all__ = ["make_engine", "smol", "smol_path", "vocab_model"]
