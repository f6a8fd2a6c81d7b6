"""The probability of one label or field of an answer, as hosts return it and results have it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

ROUNDING = 1e-3  # by which a sum of probabilities may exceed 1


@dataclass(frozen=True)
class Probability:
    """How probable a label or field is as it was written.

    Exact where `values` has the probabilities of all that it could be; else the product over the `n_tokens` tokens in which it was written,
    which falls with every token.
    """

    value: float
    values: Mapping[str, float] = field(default_factory=dict)
    n_tokens: int = 0

    @property
    def is_exact(self) -> bool:
        return bool(self.values)

    @classmethod
    def of(cls, said: object) -> "Probability | None":
        """Read what `to_json` writes; None for anything else, as a server that does not know of it may send."""
        if not isinstance(said, dict):
            return None
        exact, product = said.get("probability"), said.get("token_product")
        values = said.get("values")
        if _is_share(exact) and isinstance(values, dict) and values:
            return cls(float(exact), {name: float(one) for name, one in values.items() if _is_share(one)})
        n_tokens = said.get("n_tokens")
        if _is_share(product):
            return cls(float(product), n_tokens=n_tokens if isinstance(n_tokens, int) else 0)
        return None

    def to_json(self) -> dict[str, object]:
        """Return it by the names of results."""
        if self.is_exact:
            return {"probability": self.value, "values": dict(self.values)}
        return {"token_product": self.value, "n_tokens": self.n_tokens}

    def tempered(self, temperature: float) -> "Probability":
        """Return it at a temperature: each probability to the power of 1/T, those of listed values normalized."""
        if temperature == 1.0:
            return self
        total = sum(one ** (1 / temperature) for one in self.values.values()) or 1.0
        return replace(
            self,
            value=self.value ** (1 / temperature) / total,
            values={name: one ** (1 / temperature) / total for name, one in self.values.items()},
        )


def _is_share(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 + ROUNDING
