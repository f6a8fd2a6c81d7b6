"""How long 100,000 tokens of Mixtral 8x7B would take on three machines, for a matrix and for a divergence."""

import pytest

from mixcli.insight.forecast import ReadingForecast, Work, forecast, n_tokens_of, subject_named
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from profiles.request import PlanRequest

N_TOKENS = 195 * 512
# profile, quant, work: tokens a second, seconds of the host, seconds in all. By arithmetic: 32 layers of 61,440 inputs a token,
# summed at 400 million a second; 32,000 logits of every second token
GOLDEN = {
    ("rtx-3090", "Q8_0", "importance"): (552, 491, 672),
    ("rtx-4090", "Q8_0", "importance"): (885, 491, 604),
    ("cpu-avx512-64gb", "Q4_K_M", "importance"): (48, 491, 2571),
    ("rtx-3090", "Q4_K_M", "scores"): (765, 4.6, 135),
    ("rtx-4090", "Q4_K_M", "scores"): (1600, 4.6, 67),
    ("cpu-avx512-64gb", "Q4_K_M", "scores"): (48, 4.6, 2085),
    ("rtx-3090", "Q8_0", "baseline"): (552, 44.5, 225),
    ("rtx-4090", "Q8_0", "baseline"): (885, 44.5, 157),
    ("cpu-avx512-64gb", "Q6_K", "baseline"): (41, 44.5, 2480),
}


def forecast_of(profile: str, quant: str, work: Work) -> ReadingForecast:
    load_options = LoadOptions(PlanRequest(n_ctx=512), profile)
    subject = subject_named(f"mixtral:{quant}", load_options)
    return forecast(subject, load_options, 512, N_TOKENS, work)


@pytest.mark.parametrize(("profile", "quant", "work"), GOLDEN)
def test_a_forecast_is_the_planner_s_rate_and_the_host_s_work(
    home: object, profile: str, quant: str, work: Work
) -> None:
    found = forecast_of(profile, quant, work)
    prefill, host, seconds = GOLDEN[profile, quant, work]
    assert found.prefill == pytest.approx(prefill, rel=0.1), "the planner's, which may learn"
    assert found.seconds_host == pytest.approx(host, rel=0.01)
    assert found.seconds == pytest.approx(N_TOKENS / found.prefill + found.seconds_host)
    assert found.seconds == pytest.approx(seconds, rel=0.1)


def test_tokens_are_counted_in_whole_chunks() -> None:
    pieces = [TextPiece("a", "prose", "x" * 400_000)]
    assert n_tokens_of(pieces, 512, None) == N_TOKENS
    assert n_tokens_of(pieces, 512, 3) == 1536
