"""The hyperparameters of a model, and the limits that they are held to.

config_hparams.py reads them from config.json, params_hparams.py from Mistral's own params.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from quantize.errors import MalformedFile, Unsupported

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # llama.cpp's LLAMA_MAX_EXPERTS
MAX_WIDTH = 1 << 20
MAX_VOCABULARY = 1 << 22
MAX_CONTEXT = 1 << 30
SAME = 1e-6  # two factors that differ by less are one


@dataclass(frozen=True)
class RopeScaling:
    """How positions are stretched; `parameters` are the numbers of the kind, by their Hugging Face names.

    "attention_scale" is by what llama.cpp's own magnitude of YaRN must be multiplied to be the configuration's.
    """

    kind: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (https://arxiv.org/abs/2405.04434): queries and keys/values pass through low ranks.

    A head's query and key have `head_nope` elements without and `head_rope` with rotary positions, its value has `head_v`.
    """

    q_rank: int
    kv_rank: int
    head_nope: int
    head_rope: int
    head_v: int

    @property
    def head_qk(self) -> int:
        return self.head_nope + self.head_rope


@dataclass(frozen=True)
class Routing:
    """How tokens choose among experts where a model says more than how many (DeepSeek's kind of mixture).

    The first `n_layer_dense` layers have no experts. `n_ff` is the width of one expert, `n_shared` experts are used by every token.
    Weights of the chosen experts are multiplied by `scale`, and sum to one where `normalizes`. `groups` are (all, used). `scoring` is the
    router's function where a configuration names it.
    """

    n_ff: int
    n_shared: int
    n_layer_dense: int = 0
    scale: float = 1.0
    normalizes: bool = True
    groups: tuple[int, int] | None = None
    scoring: str | None = None


@dataclass(frozen=True)
class Temperature:
    """Attention's temperature beyond the trained context: a query at position p is multiplied by 1 + scale * ln(1 + floor(p / length))."""

    scale: float
    length: int


@dataclass(frozen=True)
class Hparams:
    """What decides shapes and metadata. `head_dim` is None where the file leaves it to n_embd / n_head.

    `architecture` is llama.cpp's name. `sees_images` says that the model has a vision part, which is not converted. `window` are the tokens that
    some layers look back to, where those are fewer than the context: in llama.cpp every layer of these models sees all.
    """

    n_layer: int
    n_ctx: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int | None
    rms_eps: float
    rope_base: float
    head_dim: int | None = None
    n_expert: int = 0
    n_expert_used: int = 0
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = False
    architecture: str = "llama"
    mla: LatentAttention | None = None
    routing: Routing | None = None
    temperature: Temperature | None = None
    sees_images: bool = False
    window: int | None = None

    @property
    def head_size(self) -> int:
        return self.head_dim or self.n_embd // self.n_head

    @property
    def n_rot(self) -> int:
        """Return how many elements of a head are rotated."""
        return self.mla.head_rope if self.mla else self.head_size

    def has_experts(self, layer: int) -> bool:
        return self.n_expert > 0 and (self.routing is None or layer >= self.routing.n_layer_dense)


def smallest_window(said: object, n_ctx: int) -> int | None:
    """Return the sliding window of a configuration, a number or one for each kind of layer; None where there is none, or the context ends before."""
    numbers = said if isinstance(said, list) else [said]
    windows = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 0 < n < n_ctx]
    return min(windows, default=None)


def yarn_magnitude(factor: float, share: float = 1.0) -> float:
    """Return by what YaRN multiplies queries and keys whose positions are stretched by `factor` (https://arxiv.org/abs/2309.00071, 3.4)."""
    return 1.0 if factor <= 1 else 1.0 + 0.1 * share * log(factor)


def with_magnitude(scaling: RopeScaling, wanted: float, architecture: str, where: str) -> RopeScaling:
    """Return YaRN with the magnitude that is `wanted`, where llama.cpp takes another one (llama-context.cpp).

    It reads `log_multiplier` in all architectures but llama, and `attention_factor` in none.
    """
    factor = scaling.parameters["factor"]
    share = 0.0 if architecture == "llama" else scaling.parameters.get("log_multiplier", 0.0)
    own = yarn_magnitude(factor) / (yarn_magnitude(factor, share) if share else 1.0)
    if not wanted > 0:
        raise MalformedFile(f"{where} has YaRN with an attention factor of {wanted:g}; it must be above 0")
    if abs(wanted / own - 1) < SAME:
        return scaling
    if architecture in ("mistral4", "deepseek2"):  # there it would scale the products twice
        raise Unsupported(
            f"{where} has YaRN with an attention factor of {wanted:.4g}, but llama.cpp computes {own:.4g} for this architecture; mixcli cannot convert it"
        )
    return RopeScaling(scaling.kind, {**scaling.parameters, "attention_scale": wanted / own})


def checked(hparams: Hparams, where: str) -> Hparams:
    """Return hyperparameters whose numbers go together; else CorruptFile, or Unsupported where llama.cpp has no way to say them."""
    if hparams.head_dim is None and hparams.n_embd % hparams.n_head:
        raise MalformedFile(
            f"{where} has a hidden size of {hparams.n_embd}, which is not a multiple of the {hparams.n_head} heads"
        )
    if hparams.n_head % hparams.n_head_kv:
        raise MalformedFile(
            f"{where} has {hparams.n_head} heads, which is not a multiple of the {hparams.n_head_kv} key-value heads"
        )
    if hparams.n_rot % 2:
        raise MalformedFile(f"{where} has the odd head size {hparams.n_rot}")
    if hparams.mla and hparams.n_head_kv != hparams.n_head:
        raise MalformedFile(
            f"{where} has {hparams.n_head_kv} key-value heads, but latent attention has one for each of the {hparams.n_head} heads"
        )
    if hparams.temperature:
        _check_temperature(hparams, hparams.temperature, where)
    return hparams


def _check_temperature(hparams: Hparams, temperature: Temperature, where: str) -> None:
    """llama.cpp takes the length of the temperature from that of YaRN."""
    scaling = hparams.rope_scaling
    trained = scaling.parameters.get("original_max_position_embeddings") if scaling else None
    if trained is None:
        raise Unsupported(
            f"{where} scales attention by position without YaRN, which llama.cpp does not compute; mixcli cannot convert it"
        )
    if trained != temperature.length:
        raise Unsupported(
            f"{where} scales attention from {temperature.length:,} positions on and has YaRN from {trained:,.0f}, but llama.cpp needs "
            "one number for both; mixcli cannot convert it"
        )


__all__ = [
    "MAX_CONTEXT",
    "MAX_EXPERTS",
    "MAX_LAYERS",
    "MAX_VOCABULARY",
    "MAX_WIDTH",
    "Hparams",
    "LatentAttention",
    "RopeScaling",
    "Routing",
    "Temperature",
    "checked",
    "smallest_window",
    "with_magnitude",
    "yarn_magnitude",
]
