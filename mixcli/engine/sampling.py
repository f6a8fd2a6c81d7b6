"""Validated sampling parameters, and the llama.cpp sampler chain that they select."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mixcli.engine.token_sampler import Bound, TokenSampler
from mixcli.errors import BadRequest
from mixcli.llama.model import Vocab
from mixcli.llama.sampler import Sampler
from mixcli.request.sampling_table import (
    API_TEMPERATURE,
    MAX_BREAKER_LENGTH,
    MAX_STOP_LENGTH,
    OPTIONAL,
    RANGES,
    Range,
    texts_fault,
)

MAX_BIASES = 4096
QUICK_BREAKERS = 16  # characters of all of them, each of which takes a millisecond or more
_TOKENS, _BIASES = Range(0, (1 << 31) - 1, whole=True), Range(-100, 100)
_RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's sign for "choose one yourself"


@dataclass(frozen=True)
class SamplingParams:
    """Checked when made: BadRequest names the field.

    Names and meanings are those of the OpenAI API and, beyond it, of llama-server. `max_tokens` None means until the context is
    full; before `min_tokens` the model does not end the answer, while a stop text or a constraint may. The stages run in llama.cpp's order: bias, penalties, DRY, top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature.

    - `temperature` 0, and `top_p` 0 without mirostat, take the most likely token and leave the filters out; `dynatemp_range` r makes it t - r .. t + r by certainty.
    - Off is: `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1, `top_n_sigma` below or at 0, `xtc_probability` 0, `dry_multiplier` 0.
    - `repeat_penalty` looks at the last `repeat_last_n` tokens and DRY at `dry_penalty_last_n`, the prompt's included (-1: all);
      frequency and presence penalty look at the whole answer and not at the prompt, as OpenAI's do.
    - `mirostat` 1 or 2 draws instead of the filters; bias, penalties and temperature still apply.
    - `logit_bias` maps token ids to -100 .. 100; `stop` ends the answer before any of its texts.
    - `seed` None is a random one. The same seed draws the same text from the same logits. A token's logits differ in their last
      bits with the tokens that are computed beside it, so alone and in a batch the text is the same only until a draw falls
      between two such roundings; from there on it is another text.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = API_TEMPERATURE
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limits in RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                _check(name, value, limits)
        _check_texts("stop", self.stop, MAX_STOP_LENGTH)
        _check_texts("dry_sequence_breakers", self.dry_sequence_breakers, MAX_BREAKER_LENGTH)
        self._check_bias()

    def _check_bias(self) -> None:
        if len(self.logit_bias) > MAX_BIASES:
            raise BadRequest(
                f"logit_bias has {len(self.logit_bias):,} tokens; the limit is {MAX_BIASES:,}",
                param="logit_bias",
            )
        for token, bias in self.logit_bias.items():
            _check("logit_bias", token, _TOKENS)
            _check("logit_bias", bias, _BIASES)

    def varied(self, i: int) -> "SamplingParams":
        """Return the parameters of the i-th answer to one prompt: another seed where there is one."""
        if self.seed is None:
            return self
        seed = self.seed + i
        return replace(self, seed=seed if RANGES["seed"].allows(seed) else seed - (1 << 64))

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise BadRequest for a biased token that the vocabulary does not have."""
        for token in self.logit_bias:
            if token >= n_vocab:
                raise BadRequest(
                    f"logit_bias names token {token}; the vocabulary has {n_vocab:,} tokens",
                    param="logit_bias",
                )

    def chooser(self, vocab: Vocab, n_ctx: int, prompt: Sequence[int]) -> TokenSampler:
        """Build what chooses this request's tokens; a seed is drawn here when there is none."""
        seen: set[int] = set()
        if self._repeats:
            seen.update(_last(prompt, self.repeat_last_n))
        if self.dry_multiplier:
            seen.update(_last(prompt, self.dry_penalty_last_n))
        return TokenSampler(
            vocab.candidates,
            bias=self.logit_bias,
            adjust=self._adjusting(vocab, n_ctx, prompt),
            seen=seen,
            draw=None if self._greedy else self._drawing(vocab),
            bound=self._bound,
        )

    @property
    def has_long_breakers(self) -> bool:
        """Return whether a sampler with texts that end repetitions takes long to make."""
        return self.dry_multiplier > 0 and sum(map(len, self.dry_sequence_breakers)) > QUICK_BREAKERS

    @property
    def _greedy(self) -> bool:
        return not self.temperature or (not self.top_p and not self.mirostat)

    @property
    def _repeats(self) -> bool:
        return self.repeat_penalty != 1.0 and self.repeat_last_n != 0

    def _adjusting(self, vocab: Vocab, n_ctx: int, prompt: Sequence[int]) -> Sampler | None:
        """Build the stages that change the logits of seen tokens."""
        chain = Sampler()
        n = vocab.n_tokens
        if self._repeats:
            last_n = _within(self.repeat_last_n, n_ctx)
            chain.penalties(n, last_n, repeat=self.repeat_penalty, seen=_last(prompt, last_n))
        if self.frequency_penalty or self.presence_penalty:
            chain.penalties(n, n_ctx, frequency=self.frequency_penalty, presence=self.presence_penalty)
        if self.dry_multiplier and self.dry_penalty_last_n:
            last_n = _within(self.dry_penalty_last_n, n_ctx)
            chain.dry(
                vocab,
                multiplier=self.dry_multiplier,
                base=self.dry_base,
                allowed_length=self.dry_allowed_length,
                last_n=last_n,
                breakers=self.dry_sequence_breakers,
                seen=_last(prompt, last_n),
            )
        return chain if len(chain) else None

    def _drawing(self, vocab: Vocab) -> Sampler:
        """Build the stages that filter and draw."""
        chain = Sampler()
        seed = secrets.randbits(32) if self.seed is None else self.seed & 0xFFFFFFFF
        seed = seed if seed != _RANDOM_SEED else 0
        if self.mirostat:
            chain.temperature(self.temperature, self.dynatemp_range, self.dynatemp_exponent)
            if self.mirostat == 1:
                return chain.mirostat(vocab.n_tokens, seed, self.mirostat_tau, self.mirostat_eta)
            return chain.mirostat_v2(seed, self.mirostat_tau, self.mirostat_eta)
        if self.top_k:
            chain.top_k(self.top_k)
        if self.typical_p < 1:
            chain.typical_p(self.typical_p)
        if self.top_p < 1:
            chain.top_p(self.top_p)
        if self.min_p > 0:
            chain.min_p(self.min_p)
        if self.xtc_probability > 0:
            chain.xtc(self.xtc_probability, self.xtc_threshold, seed)
        return chain.temperature(self.temperature, self.dynatemp_range, self.dynatemp_exponent).random(seed)

    @property
    def _bound(self) -> Bound:
        """Return the bound below which the first filters keep nothing."""
        if self.mirostat:
            return Bound()
        needs_all = self.typical_p < 1 or self.top_p < 1  # a probability is a share of all tokens
        return Bound(self.top_k, 0.0 if needs_all else self.min_p, self.top_n_sigma)


def _within(last_n: int, n_ctx: int) -> int:
    return n_ctx if last_n < 0 else min(last_n, n_ctx)


def _last(tokens: Sequence[int], n: int) -> Sequence[int]:
    return tokens if n < 0 else tokens[max(0, len(tokens) - n) :]


def _check_texts(name: str, texts: object, length: int) -> None:
    fault = (
        texts_fault(name, texts, length) if isinstance(texts, tuple) else f"{name} must be a list of strings"
    )
    if fault:
        raise BadRequest(fault, param=name)


def _check(name: str, value: object, limits: Range) -> None:
    if fault := limits.fault(name, value):
        raise BadRequest(fault, param=name)
