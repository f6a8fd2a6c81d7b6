"""mixcli plan and profiles, as a person types them; the plans for Mixtral on well-known machines are golden."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixcli.planning.machines import own_profiles
from mixcli.planning.report import flags
from mixcli.system import json_cache
from profiles.placement import Placement
from profiles.quality import USUAL
from quantize.source import text
from tests.support.small_gguf import gguf, metadata, shapes, write

Runner = Callable[..., Any]
GIB = 1 << 30

# machine: (experts on the GPU in GiB at least, at most; micro-batch; layers whose experts wholly live on the host)
GOLDEN = {
    "rtx-4090": ((20.4, 20.7), 512, 6),
    "rtx-3090": ((20.4, 20.7), 512, 6),
    "cpu": ((0.0, 0.0), 512, 0),
}


@pytest.mark.parametrize("profile", GOLDEN)
def test_mixtral_on_well_known_machines(profile: str, mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral", "--quant", "Q4_K_M", "--profile", profile, "--ctx", "8192", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    placement = Placement.from_json(json.dumps(plan["placement"]))
    (least, most), n_ubatch, n_host = GOLDEN[profile]
    assert least <= plan["bytes_experts_on_gpus"] / GIB <= most
    assert (placement.n_ctx, placement.n_ubatch, placement.type_k) == (8192, n_ubatch, "f16")
    assert all(account["left"] >= 0 for account in plan["ledger"])
    assert round(plan["bytes_weights"] / (1 << 20)) == 27130
    if profile == "cpu":
        assert placement.n_gpu_layers == 0
        assert placement.tensor_overrides == ()
    else:
        assert placement.n_gpu_layers == 33
        whole = [p for p, _ in placement.tensor_overrides if "(gate|up|down)" in p]
        assert sum(len(re.findall(r"\d+", pattern)) for pattern in whole) == n_host
        assert {buffer for _, buffer in placement.tensor_overrides} == {"CPU"}
        assert "-ngl 33" in plan["llama_cpp"]


def test_budgets_on_the_command_line_win(mixcli: Runner) -> None:
    ask = ("plan", "mixtral:Q4_K_M", "--profile", "rtx-4090", "--ctx", "4096", "--json")
    wide, narrow = (json.loads(mixcli(*ask, *more).stdout) for more in ((), ("--vram", "12GiB")))
    assert narrow["bytes_experts_on_gpus"] < wide["bytes_experts_on_gpus"]
    assert narrow["ledger"][0]["need"] <= 12 * GIB
    small = json.loads(mixcli(*ask, "--kv", "q8_0").stdout)
    assert small["placement"]["type_v"] == "q8_0"
    assert small["ledger"][0]["kv"] * 32 == wide["ledger"][0]["kv"] * 17


def test_a_refusal_has_need_have_and_three_ways_out(mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral-8x22b", "--quant", "Q4_K_M", "--profile", "cpu", "--ctx", "32768")
    assert done.returncode == 4
    assert re.search(r"needs 8\d\.\d GiB .* 60\.0 GiB are free; try (.*), or (.*), or ", done.stderr)
    assert "try mixtral-8x22b:Q2_K, the largest quant that fits (52.1 GB), or --from-disk" in done.stderr
    fits = mixcli("plan", "mixtral-8x22b:Q2_K", "--profile", "cpu", "--ctx", "32768")
    assert fits.returncode == 0, fits.stderr
    none = mixcli("plan", "mixtral-8x22b", "--profile", "laptop-8gb-gpu")
    assert (none.returncode, "try mixtral:Q5_K_M, a model that fits (33.2 GB)" in none.stderr) == (4, True), (
        none.stderr
    )


def test_people_see_bars_flags_and_what_else_fits(mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral", "--profile", "laptop-8gb-gpu", "--quant", "Q3_K_M")
    assert done.returncode == 0, done.stderr
    for words in (
        "CUDA0",
        "host",
        "[E",
        "experts",
        "kv",
        "llama.cpp -c 8192",
        "-ot 'blk",
        "estimate",
        "Q3_K_S\t8192",
        "--ctx 16384",
    ):
        assert words in done.stdout


@pytest.mark.slow
def test_without_a_type_all_are_planned_and_one_is_chosen(mixcli: Runner) -> None:
    ask = ("plan", "mixtral", "--profile", "rtx-3090")
    plan = json.loads(mixcli(*ask, "--json", "--prefer", "quality").stdout)
    assert plan["model"] == "mixtral:Q4_K_M"
    (chosen,) = [row for row in plan["types"] if row["chosen"]]
    assert chosen["type"] == "Q4_K_M"
    assert chosen["decode"][1] == pytest.approx(plan["estimate"]["decode"])
    done = mixcli(*ask)
    assert "Q3_K_M\t22.5 GB\t" in done.stdout
    assert (
        "chosen: balanced, 1.5x the decode of Q3_K_L for 1.2 % more loss; the largest that fits entirely on the GPUs"
        in done.stdout
    )
    assert "mixtral:Q3_K_M, context 8192 tokens" in done.stdout
    refused = mixcli("plan", "mixtral:Q4_K_M", "--profile", "rtx-3090", "--prefer", "speed")
    assert (refused.returncode, "mixtral:Q4_K_M names one" in refused.stderr) == (2, True)
    assert (plan["profile"], plan["prefer"], plan["reason"][:8]) == ("rtx-3090", "quality", "quality,")
    nothing = mixcli("plan", "mixtral-8x22b", "--profile", "rtx-3060-12gb", "--json")
    assert (nothing.returncode, "the model needs" in nothing.stderr) == (4, True)
    assert not any(row["fits"] for row in json.loads(nothing.stdout)["types"])
    lacking = mixcli("plan", "mixtral", "--profile", "rtx-4090", "--ram", "0")
    assert (lacking.returncode, lacking.stdout.count("does not fit")) == (4, len(USUAL))
    assert "0.0 GiB are allowed by --ram in host memory, which needs 0.3" in lacking.stderr
    for named in (("pull", "mixtral:Q8_0"), ("pull", "demo"), ("plan", "mixtral:Q8_0")):
        assert mixcli(*named, "--prefer", "speed").returncode == 2


@pytest.mark.slow
def test_a_row_has_the_numbers_of_its_type_and_what_nothing_reaches_is_refused(mixcli: Runner) -> None:
    rows = json.loads(mixcli("plan", "mixtral", "--profile", "rtx-4090", "--json").stdout)["types"]
    named = json.loads(mixcli("plan", "mixtral:Q8_0", "--profile", "rtx-4090", "--json").stdout)
    assert rows[0]["type"] == "Q8_0"
    assert rows[0]["prefill"][1] == pytest.approx(named["estimate"]["prefill"])
    by_type = {row["type"]: row["decode"][1] for row in rows}
    shown = {other["what"].split(",")[0]: other["decode"] for other in named["others"]}
    assert {name: rate for name, rate in shown.items() if name in by_type} == {
        name: pytest.approx(by_type[name]) for name in shown if name in by_type
    }
    done = mixcli("plan", "mixtral", "--profile", "rtx-4090", "--min-tps", "1000")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert "no quant of mixtral decodes 1000 tok/s here: the fastest, Q2_K, decodes about 103" in done.stderr
    assert (
        "no quant reaches 1000 tok/s"
        in mixcli("search", "8x22b", "--profile", "2x3090", "--min-tps", "1000").stdout
    )


def test_the_largest_file_that_lies_wholly_on_the_card_comes_first(mixcli: Runner) -> None:
    ask = ("plan", "mixtral:Q5_K_M", "--profile", "rtx-4090", "--json")
    first, second = json.loads(mixcli(*ask).stdout)["others"][:2]
    assert first["what"] == "Q3_K_M, the largest that fits entirely on the GPUs"
    assert first["decode"] > 90 > second["decode"]


def test_what_would_be_possible_instead_has_ranges_as_the_estimate_does(mixcli: Runner) -> None:
    for profile, more in (("cpu", ""), ("rtx-4090", r"\t\d+\.\d GiB")):
        shown = mixcli("plan", "mixtral:Q4_K_M", "--profile", profile).stdout
        assert ("experts on GPUs" in shown) == bool(more)
        _, *rows = shown[shown.index("\ninstead\t") :].split("\n")[1:-1]
        assert rows
        for row in rows:
            assert re.fullmatch(rf".+\t\d+\t[\d.]+ to [\d.]+\t[\d.]+ to [\d.]+{more}", row)


@pytest.mark.model
def test_a_model_that_is_here(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli("plan", "demo", "--ctx", "2048", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["model"] == "demo:Q4_K_M"
    assert plan["ledger"][-1]["device"] == "host"


@pytest.mark.parametrize(
    ("template", "tensors", "words"),
    [
        ("{% for m in messages %}{{ m['content'] | shout }}{% endfor %}", {}, "chat template is broken: No filter named 'shout'"),
        ("{% for m in %}", {}, "chat template is broken: "),
        ("[INST]" * 50_000, {}, "at most 262,144 characters"),
        (None, {"blk.0.attn_sinks.weight": (4,)}, "has 1 tensor that a llama model does not have, such as 'blk.0.attn_sinks.weight'"),
    ],
)  # fmt: skip
def test_what_run_would_refuse_is_refused_by_plan(
    template: str | None, tensors: dict[str, tuple[int, ...]], words: str, mixcli: Runner, tmp_path: Path
) -> None:
    keys = metadata() if template is None else metadata(**{"tokenizer.chat_template": text(template)})
    path = write(tmp_path / "m.gguf", gguf(keys=keys, tensors={**shapes(), **tensors}))
    done = mixcli("plan", str(path))
    assert (done.returncode, done.stdout) == (5, "")
    assert words in done.stderr


def test_a_template_is_tried_once_and_may_depend_on_the_conversation(mixcli: Runner, tmp_path: Path) -> None:
    keys = metadata(**{"tokenizer.chat_template": text("{{ messages[1].content.nothing.there }}")})
    path = write(tmp_path / "m.gguf", gguf(keys=keys))
    for _ in range(2):
        assert mixcli("plan", str(path)).returncode == 0
        assert list(json_cache.load("templates").values()) == [True]


def test_profiles_are_listed_shown_and_written(mixcli: Runner, home: Path) -> None:
    assert "rtx-4090" in mixcli("profiles", "list").stdout
    assert json.loads(mixcli("profiles", "show", "2x3090", "--json").stdout)["gpus"][1]["name"] == "CUDA1"
    assert "MemoryBudget" not in mixcli("profiles", "show", "2x3090").stdout
    written = mixcli("profiles", "new", "tower", "--extends", "rtx-3090")
    assert written.returncode == 0, written.stderr
    assert "tower" in mixcli("profiles", "list").stdout
    assert mixcli("plan", "mixtral", "--profile", "tower", "--json").returncode == 0
    assert mixcli("profiles", "new", "tower").returncode == 2
    detected = mixcli("profiles", "new", "here")
    assert detected.returncode == 0, detected.stderr
    assert json.loads(mixcli("profiles", "show", "here", "--json").stdout)["bandwidth"] > 0.5
    assert mixcli("profiles", "show", "nowhere").returncode == 2
    assert "did you mean rtx-4090?" in mixcli("profiles", "show", "409").stderr
    assert "budget" not in mixcli("profiles", "show", "2x3090").stdout


def test_flags_are_llama_cpps_own() -> None:
    placement = Placement(
        n_gpu_layers=5, tensor_overrides=((r"blk\.1\.", "CPU"),), tensor_split=(1.0, 2.0), load_mode="none",
        repack=False, workers=("127.0.0.1:1",),
    )  # fmt: skip
    for words in (
        "-ngl 5",
        r"-ot 'blk\.1\.=CPU'",
        "-ts 1,2",
        "--no-mmap",
        "--no-repack",
        "--rpc 127.0.0.1:1",
    ):
        assert words in flags(placement)


def test_where_nothing_of_the_catalog_fits_plan_and_a_dry_pull_name_the_machine_and_the_demo(
    mixcli: Runner,
) -> None:
    for command in (("plan",), ("pull", "--dry-run", "--offline")):
        done = mixcli(*command, "--profile", "cpu", "--ram", "1GiB")
        assert (done.returncode, done.stdout) == (4, "")
        assert "fits on cpu; " in done.stderr
        assert "`mixcli pull demo` makes a small one" in done.stderr


def test_one_bad_profile_hides_neither_the_others_nor_the_cards(mixcli: Runner) -> None:
    folder = own_profiles()
    folder.mkdir(parents=True)
    (folder / "bad.toml").write_text("description = 3\n[host]\nram_gib = 1\ncores = 1\n")
    listed = mixcli("profiles", "list")
    assert listed.returncode == 0, listed.stderr
    assert "bad.toml: 'description' must be text" in listed.stdout
    assert "rtx-4090" in listed.stdout
    asked = mixcli("plan", "mixtral:Q4_K_M", "--profile", "rtx-4090", "--if", "gpu=+9090")
    assert asked.returncode == 2
    assert "GPUs are 2x3090, " in asked.stderr
