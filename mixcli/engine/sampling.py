"""How the next token is chosen: checked parameters, and the chain of llama.cpp's samplers that they mean."""

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mixcli.engine.llama import Sampler
from mixcli.errors import BadRequest

MAX_TOKENS = 1 << 24
MAX_STOPS, MAX_STOP_LENGTH = 16, 1000
MAX_BIASES = 4096
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's sign for "choose one yourself"

# field: (least, greatest); the least of an open interval is written as the smallest float above it
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_p": (math.ulp(0.0), 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.01, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}
_INTEGERS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, MAX_TOKENS),
    "top_k": (0, 1 << 30),
    "repeat_last_n": (0, 1 << 20),
    "seed": (-(1 << 63), (1 << 64) - 1),
}


@dataclass(frozen=True)
class SamplingParams:
    """Checked when made: BadRequest names the field.

    Names are those of the OpenAI API and, beyond it, of llama.cpp. `max_tokens` None means until the context is full, `seed` None
    a random one. `temperature` 0 takes the likeliest token; `top_k` 0, `top_p` 1 and `min_p` 0 switch a filter off.
    `repeat_penalty` looks at the last `repeat_last_n` tokens, the prompt's included; frequency and presence penalty at the whole
    answer. `logit_bias` maps token ids to -100 .. 100; `stop` ends the answer before any of its texts.
    """

    max_tokens: int | None = None
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (least, greatest) in _RANGES.items():
            _check_number(name, getattr(self, name), least, greatest)
        for name, (first, last) in _INTEGERS.items():
            value = getattr(self, name)
            if value is not None or name not in {"max_tokens", "seed"}:
                _check_integer(name, value, first, last)
        self._check_stop()
        self._check_bias()

    def _check_stop(self) -> None:
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise BadRequest("stop must be a list of texts", param="stop")
        if len(self.stop) > MAX_STOPS:
            raise BadRequest(f"stop has {len(self.stop)} texts; {MAX_STOPS} is the limit", param="stop")
        if not all(0 < len(text) <= MAX_STOP_LENGTH for text in self.stop):
            raise BadRequest(f"a stop text must have 1 to {MAX_STOP_LENGTH} characters", param="stop")

    def _check_bias(self) -> None:
        if len(self.logit_bias) > MAX_BIASES:
            raise BadRequest(
                f"logit_bias has {len(self.logit_bias):,} tokens; {MAX_BIASES:,} is the limit",
                param="logit_bias",
            )
        for token, bias in self.logit_bias.items():
            _check_integer("logit_bias", token, 0, (1 << 31) - 1)
            _check_number("logit_bias", bias, -100.0, 100.0)

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise BadRequest for a biased token that the vocabulary does not have."""
        for token in self.logit_bias:
            if token >= n_vocab:
                raise BadRequest(
                    f"logit_bias names token {token}; the vocabulary has {n_vocab:,}", param="logit_bias"
                )

    def sampler(self, n_vocab: int, n_ctx: int, prompt: Iterable[int]) -> Sampler:
        """Build the native chain in llama.cpp's usual order; a seed is drawn here when there is none."""
        chain = Sampler()
        if self.logit_bias:
            chain.logit_bias(n_vocab, self.logit_bias)
        if self.repeat_penalty != 1.0 and self.repeat_last_n:
            chain.penalties(n_vocab, self.repeat_last_n, repeat=self.repeat_penalty, seen=prompt)
        if self.frequency_penalty or self.presence_penalty:
            chain.penalties(n_vocab, n_ctx, frequency=self.frequency_penalty, presence=self.presence_penalty)
        if self.temperature == 0:
            return chain.greedy()
        if self.top_k:
            chain.top_k(self.top_k)
        if self.top_p < 1:
            chain.top_p(self.top_p)
        if self.min_p > 0:
            chain.min_p(self.min_p)
        seed = secrets.randbits(32) if self.seed is None else self.seed & 0xFFFFFFFF
        return chain.temperature(self.temperature).random(seed if seed != _RANDOM_SEED else 0)


def _check_number(name: str, value: object, least: float, greatest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{name} must be a number, not {value!r:.40}", param=name)
    if not least <= value <= greatest:  # NaN fails this too
        bound = "above 0" if least == math.ulp(0.0) else f"from {least:g}"
        raise BadRequest(f"{name} is {value}; it must be {bound} to {greatest:g}", param=name)


def _check_integer(name: str, value: object, least: int, greatest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{name} must be a whole number, not {value!r:.40}", param=name)
    if not least <= value <= greatest:
        raise BadRequest(f"{name} is {value}; it must be {least:,} to {greatest:,}", param=name)
