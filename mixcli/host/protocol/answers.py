"""Answers that come whole. They are apart from messages.py because a streamed answer, which `mixcli run` waits for, needs none of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixcli.host.protocol.messages import Fields, TokenUsage, count_in, counts_in, object_of
from mixcli.request.probability import Probability


@dataclass(frozen=True)
class ChatCompletion:
    """A whole answer as its server wrote it."""

    body: Fields

    @property
    def usage(self) -> TokenUsage:
        return counts_in(TokenUsage, self.body.get("usage"))


@dataclass(frozen=True)
class ChatChoice:
    """The text of a whole answer, why it ended, and the probabilities of the labels that it was chosen from, or of its fields."""

    text: str
    finish_reason: str
    label_probs: Mapping[str, float] = field(default_factory=dict)
    field_probs: Mapping[str, Probability] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenCount:
    """What /tokenize returns: the tokens of a text or a conversation, and of the context; None where a server leaves one out."""

    count: int | None
    max_model_len: int | None

    @classmethod
    def of(cls, value: object) -> "TokenCount":
        """Read the answer of any server."""
        found = object_of(value)

        def number(name: str) -> int | None:
            n = found.get(name)
            return n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None

        return cls(number("count"), number("max_model_len"))


@dataclass(frozen=True)
class ExpertUse:
    """How the tokens of an answer were spread over the experts: a count for each layer and expert."""

    n_expert: int
    n_expert_used: int
    layers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, value: object) -> "ExpertUse":
        """Read what a host returns."""
        found = object_of(value)
        layers = found.get("layers")
        return cls(
            count_in(found.get("n_expert")),
            count_in(found.get("n_expert_used")),
            tuple(tuple(layer) for layer in layers) if isinstance(layers, list) else (),
        )
