"""One person: decode with sampling, early and late in a text, and prefill of 512 tokens, against llama-bench (which samples nothing) and llama_cpp.Llama."""

from collections.abc import Sequence

from bench.engine import bindings
from bench.engine.ours import Load, measure
from bench.engine.programs import llama_bench
from bench.engine.scenario import Scenario
from bench.engine.subject import Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_PROMPT, N_TOKENS = 512, 128
N_DEPTH, N_LATE = 1536, 64  # tokens of context, and those that are written behind them


def sides(setting: Setting) -> Sequence[Side]:
    n_runs = 2 if setting.subject.is_small else 1
    # one token of the vocabulary's middle: any text can follow
    order = {"decode": {"prompt": [1000], "n_tokens": N_TOKENS, "n_runs": n_runs}}

    def ours() -> Numbers:
        path, early = setting.subject.path, Load(n_runs, 1, N_TOKENS + 1)
        prefill, decode = measure(path, placement(), [Load(n_runs, N_PROMPT, 1), early])
        planned, late = measure(path, placement(flash_attn=False), [early, Load(1, N_DEPTH, N_LATE + 1)])
        return {
            "prefill": prefill.prefill_rate,
            "decode": decode.decode_rate,
            "decode as planned": planned.decode_rate,
            "late decode": late.decode_rate,
        }

    def bench() -> Numbers:
        late = llama_bench(setting, 0, N_LATE, 1, N_DEPTH)
        return {**llama_bench(setting, N_PROMPT, N_TOKENS, n_runs), "late decode": late["decode"]}

    return (
        Side("mixcli", ours),
        Side("llama-bench", bench),
        Side("llama_cpp.Llama", lambda: bindings.ask(setting.subject.path, order)),
    )


SCENARIO = Scenario(
    "single",
    "One stream",
    sides,
    (
        Promise(
            "decode with sampling, in terms of llama-bench tg128",
            ("mixcli", "decode"),
            ("llama-bench", "decode"),
            "at least",
            0.97,
        ),
        Promise(
            f"the same behind {N_DEPTH:,} tokens, each with its default of flash attention",
            ("mixcli", "late decode"),
            ("llama-bench", "late decode"),
            "at least",
            0.97,
        ),
        Promise(
            "prefill of 512 tokens, in terms of llama-bench pp512",
            ("mixcli", "prefill"),
            ("llama-bench", "prefill"),
            "at least",
            0.97,
        ),
        Promise(
            "decode with sampling, in terms of llama_cpp.Llama",
            ("mixcli", "decode"),
            ("llama_cpp.Llama", "decode"),
            "at least",
            1.1,
            ("demo",),
        ),
    ),
)
