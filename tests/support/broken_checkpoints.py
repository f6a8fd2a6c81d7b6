"""Checkpoint folders with something wrong in them, and the error that names it."""

from pathlib import Path
from typing import Any

import pytest

from quantize.errors import QuantizeError
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source

SMALL: dict[str, Any] = {"tokenizer": None, "n_layer": 1, "n_embd": 16, "n_ff": 32, "n_expert": 2}


def refused(folder: Path, kind: type[QuantizeError], words: str) -> None:
    """Open and map a folder; the error must be of `kind`, one sentence, and say `words`."""
    with pytest.raises(kind, match=words) as raised:
        model_source(open_checkpoint(folder))
    message = str(raised.value)
    assert not message.endswith(".") and "\n" not in message
