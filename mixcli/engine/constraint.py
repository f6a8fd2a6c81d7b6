"""What an answer must look like: the faces that the engine uses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.llama import Vocab
from mixcli.errors import BadRequest


@dataclass(frozen=True)
class ConstraintSpec:
    """A kind and its text."""

    kind: str
    text: str

    @classmethod
    def of(cls, kind: str, what: Any, *, param: str) -> "ConstraintSpec":
        """Refuse: constraints are not here yet."""
        raise BadRequest(f"{kind} is not supported yet: {what!r:.20}", param=param)


class Constraint:
    """One running constraint."""

    is_complete = False

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Forbid tokens."""

    def accept(self, token: int) -> None:
        """Take a token."""


class Grammars:
    """The grammars of one vocabulary."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab

    def compile(self, spec: ConstraintSpec) -> Constraint:
        """Refuse."""
        raise BadRequest(f"{spec.kind} is not supported yet", param="structured_outputs")
