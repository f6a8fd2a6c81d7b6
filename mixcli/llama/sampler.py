"""A chain of llama.cpp's samplers."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Self

from llama_cpp import llama_cpp as C

from mixcli.llama.candidates import Candidates
from mixcli.llama.model import Vocab
from mixcli.llama.native import Owner

MAX_KNOWN = 8  # DRY stages that are kept to be copied


class Sampler(Owner):
    """A chain of llama.cpp's samplers; stages run in the order in which they are added."""

    def __init__(self) -> None:
        super().__init__(
            C.llama_sampler_chain_init(C.llama_sampler_chain_default_params()), C.llama_sampler_free
        )

    def __len__(self) -> int:
        return int(C.llama_sampler_chain_n(self.pointer))

    def _add(self, stage: int) -> Self:
        C.llama_sampler_chain_add(self.pointer, stage)
        return self

    def penalties(
        self,
        n_vocab: int,
        last_n: int,
        *,
        repeat: float = 1.0,
        frequency: float = 0.0,
        presence: float = 0.0,
        seen: Iterable[int] = (),
    ) -> Self:
        """Penalize what stands among the last `last_n` tokens, of which `seen` are already there."""
        stage = C.llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence)
        for token in seen:
            C.llama_sampler_accept(stage, token)
        return self._add(stage)

    def dry(
        self,
        vocab: Vocab,
        *,
        multiplier: float,
        base: float,
        allowed_length: int,
        last_n: int,
        breakers: Sequence[str],
        seen: Iterable[int] = (),
    ) -> Self:
        """Penalize a token that would extend a repetition beyond `allowed_length` tokens; breakers end a repetition."""
        known = _dry_stage(vocab, multiplier, base, allowed_length, last_n, tuple(breakers))
        stage = C.llama_sampler_clone(known.pointer)
        for token in seen:
            C.llama_sampler_accept(stage, token)
        return self._add(stage)

    def top_k(self, k: int) -> Self:
        return self._add(C.llama_sampler_init_top_k(k))

    def top_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_top_p(p, 1))

    def min_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_min_p(p, 1))

    def typical_p(self, p: float) -> Self:
        return self._add(C.llama_sampler_init_typical(p, 1))

    def xtc(self, probability: float, threshold: float, seed: int) -> Self:
        """Leave out, with a probability, all but the last of the tokens that are more likely than the threshold."""
        return self._add(C.llama_sampler_init_xtc(probability, threshold, 1, seed))

    def temperature(self, t: float, spread: float = 0.0, exponent: float = 1.0) -> Self:
        """Divide by `t`; with a spread by t - spread .. t + spread, the more the less certain the model is."""
        return self._add(C.llama_sampler_init_temp_ext(t, spread, exponent))

    def random(self, seed: int) -> Self:
        """Draw from what is left; `seed` has 32 bits and is not 0xFFFFFFFF (which would be a random seed)."""
        return self._add(C.llama_sampler_init_dist(seed))

    def mirostat(self, n_vocab: int, seed: int, tau: float, eta: float) -> Self:
        """Draw so that the surprise of each token stays around `tau` bits; the estimate uses the 100 most likely, as in the paper."""
        return self._add(C.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, 100))

    def mirostat_v2(self, seed: int, tau: float, eta: float) -> Self:
        return self._add(C.llama_sampler_init_mirostat_v2(seed, tau, eta))

    def apply(self, candidates: Candidates) -> None:
        """Run the stages; they change, reorder and drop candidates, and a last one that draws chooses."""
        C.llama_sampler_apply(self.pointer, candidates._reference)

    def accept(self, token: int) -> None:
        """Pass the chosen token to the stages that remember."""
        C.llama_sampler_accept(self.pointer, token)


def _dry_stage(vocab: Vocab, *key: float | tuple[str, ...]) -> Owner:
    """Return a DRY stage that has seen no token. llama.cpp compares each breaker with every token of the vocabulary: a long one takes 0.1 s and more."""
    known = vocab.stages.get(key)
    if known is None:
        multiplier, base, allowed_length, last_n, breakers = key
        assert isinstance(breakers, tuple)
        texts = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))
        stage = C.llama_sampler_init_dry(
            vocab._pointer, multiplier, base, allowed_length, last_n, texts, len(breakers)
        )
        known = Owner(stage, C.llama_sampler_free)
        while len(vocab.stages) >= MAX_KNOWN:
            vocab.stages.pop(next(iter(vocab.stages)), None)
        vocab.stages[key] = known
    return known
