"""mixcli pull against a stand-in hub, with the real client: what is chosen, what is fetched, what other tools find."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from mixcli.pull.quant_choice import Target, favorite
from profiles.machine import Machine
from tests.conftest import Runner
from tests.support import hub_server, small_gguf
from tests.support.hub import in_python
from tests.support.hub_server import StandIn

Q4, Q8 = small_gguf.gguf(3_000_000, seed=1), small_gguf.gguf(5_000_000, seed=2)
FILES = {"tiny.Q4_K_M.gguf": Q4, "tiny.Q8_0.gguf": Q8, "README.md": b"# tiny", "config.json": b"{}"}


def listed(mixcli: Runner) -> list[dict[str, object]]:
    return json.loads(mixcli("list", "--json").stdout)  # type: ignore[no-any-return]


def test_a_model_arrives_whole_and_once(hub: StandIn, pull, mixcli: Runner, home: Path) -> None:
    repo = hub.add("org/tiny-GGUF", FILES)
    done = pull("org/tiny-GGUF:Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Apache-2.0: open weights" in done.stderr
    assert "other quants: Q8_0" in done.stderr
    (model,) = listed(mixcli)
    assert model["model"] == "org/tiny-GGUF:Q4_K_M"
    assert model["sha256"] == hashlib.sha256(Q4).hexdigest()
    assert model["revision"] == repo.commit
    assert Path(str(model["path"])).read_bytes() == Q4
    assert sum(seen.sent for seen in hub.downloads()) == len(Q4), "a byte came twice"
    assert all(seen.status == 206 for seen in hub.downloads())
    n_requests = len(hub.log)
    assert "already installed" in pull("org/tiny-GGUF:Q4_K_M").stderr
    assert len(hub.log) == n_requests, "what is here needs no network"
    assert not list(home.rglob("*.incomplete"))


def test_other_tools_find_it(hub: StandIn, pull) -> None:
    hub.add("org/tiny-GGUF", FILES)
    assert pull("org/tiny-GGUF:Q4_K_M").returncode == 0
    before = len(hub.downloads())
    code = """
import sys, warnings
warnings.simplefilter("error")
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
found = try_to_load_from_cache("org/tiny-GGUF", "tiny.Q4_K_M.gguf")
assert hf_hub_download("org/tiny-GGUF", "tiny.Q4_K_M.gguf") == found, found
info = scan_cache_dir()
assert not info.warnings, info.warnings
print(found, info.size_on_disk)
"""
    path, on_disk = in_python(code).split()
    assert Path(path).read_bytes() == Q4
    assert int(on_disk) == len(Q4)
    assert len(hub.downloads()) == before


def test_what_hf_download_brought_is_not_fetched_again(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("org/tiny-GGUF", FILES)
    in_python("from huggingface_hub import hf_hub_download as h; h('org/tiny-GGUF', 'tiny.Q4_K_M.gguf')")
    assert [row["model"] for row in listed(mixcli)] == ["org/tiny-GGUF:Q4_K_M"]
    before = len(hub.downloads())
    done = pull("org/tiny-GGUF:Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert len(hub.downloads()) == before
    assert [row["keeper"] for row in listed(mixcli)] == ["mixcli"]


def test_wrong_bytes_in_the_cache_are_not_believed(hub: StandIn, pull, home: Path) -> None:
    hub.add("org/tiny-GGUF", FILES)
    blob = home / "huggingface/hub/models--org--tiny-GGUF/blobs" / hashlib.sha256(Q4).hexdigest()
    small_gguf.write(blob, Q4[:-1] + bytes([Q4[-1] ^ 1]))
    done = pull("org/tiny-GGUF:Q4_K_M")
    assert done.returncode == 0, done.stderr
    assert blob.read_bytes() == Q4


def test_without_a_type_all_are_planned_and_the_one_that_suits_is_chosen(hub: StandIn, pull) -> None:
    hub.add("org/tiny-GGUF", FILES)
    summary = json.loads(pull("org/tiny-GGUF", "--dry-run", "--json").stdout)
    assert summary["model"] == "org/tiny-GGUF:Q4_K_M"
    assert summary["fits"]
    assert (summary["profile"], summary["prefer"], summary["reason"][:9]) == ("auto", "balanced", "balanced,")
    assert [(row["type"], row["chosen"]) for row in summary["types"]] == [("Q8_0", False), ("Q4_K_M", True)]
    assert all(0 < row["decode"][0] < row["decode"][1] and row["on_offer"] for row in summary["types"])


@pytest.mark.slow
def test_a_dry_run_has_the_choice_in_the_shape_of_a_plan(hub: StandIn, pull, mixcli: Runner) -> None:
    ask = ("mixtral", "--profile", "rtx-4090", "--ctx", "16384")
    planned = json.loads(mixcli("plan", *ask, "--json").stdout)
    types = [row["type"] for row in planned["types"]]
    add_mixtral(hub, "mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF", *types)
    dry = json.loads(pull(*ask, "--dry-run", "--json").stdout)
    choice = ("model", "profile", "prefer", "reason")
    assert {key: dry[key] for key in choice} == {key: planned[key] for key in choice}
    there = [row for row in dry["types"] if row["on_offer"]]  # others could be made
    kept = ("type", "fits", "n_ctx", "loss_basis", "chosen", "reason")
    assert [{key: row[key] for key in kept} for row in there] == [
        {key: row[key] for key in kept} for row in planned["types"]
    ]
    assert [row.keys() for row in there] == [row.keys() for row in planned["types"]]
    named = json.loads(pull("mixtral:Q8_0", *ask[1:], "--dry-run", "--json").stdout)
    assert (named["prefer"], named["reason"]) == (None, None)


def test_a_named_type_that_does_not_fit_is_met_with_the_largest_that_does(hub: StandIn, pull) -> None:
    add_mixtral(hub, "org/mixtral-GGUF", "Q8_0", "Q5_K_M", "Q3_K_M")
    done = pull("org/mixtral-GGUF:Q8_0", "--profile", "rtx-3060-12gb", "--dry-run")
    assert "it does not fit in memory; the largest quant that fits is Q5_K_M (33.2 GB)" in done.stdout
    add_mixtral(hub, "org/large", "Q8_0")
    refused = pull("org/large", "--profile", "rtx-3060-12gb", "--ram", "8GiB")
    assert refused.returncode == 4
    assert (
        "no quant of org/large fits on rtx-3060-12gb: the smallest, Q8_0, is 49.6 GB, and 20.6 GB are free; "
        in refused.stderr
    )
    assert re.search(
        r"`mixcli pull mixtral --profile rtx-3060-12gb --ram 8GiB` downloads \w+, .* tok/s on rtx",
        refused.stderr,
    )
    assert refused.stderr.strip().endswith("; to force a quant: org/large:Q8_0")


def test_a_preference_chooses_even_where_another_type_is_here(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("org/tiny-GGUF", FILES)
    assert pull("org/tiny-GGUF:Q8_0").returncode == 0
    assert "already installed" in pull("org/tiny-GGUF").stderr
    done = pull("org/tiny-GGUF", "--prefer", "speed")
    assert "chosen: speed, " in done.stderr
    assert [row["model"] for row in listed(mixcli)] == ["org/tiny-GGUF:Q4_K_M", "org/tiny-GGUF:Q8_0"]


def test_what_a_card_can_do_decides_and_is_said_before_a_byte_is_fetched(hub: StandIn, pull) -> None:
    add_mixtral(hub, "org/mixtral-GGUF", "Q5_K_M", "Q4_K_M", "Q3_K_M")
    asked = ("org/mixtral-GGUF", "--profile", "rtx-4090", "--dry-run")
    quality = json.loads(pull(*asked, "--json", "--prefer", "quality").stdout)
    assert quality["model"] == "org/mixtral-GGUF:Q5_K_M"
    table = pull(*asked).stdout
    assert re.search(
        r"Q3_K_M\t22\.5 GB\t.*\t69 to 99\t.*\t4\.5 %\tchosen: balanced, 4\.3x the decode of Q4_K_M for 3.0 % more loss; the",
        table,
    )
    assert re.search(r"Q5_K_M\t33\.2 GB\t.*\t9\.\d to 13\t.*\t~0\.\d %", table)
    named = json.loads(pull("org/mixtral-GGUF:Q5_K_M", *asked[1:], "--json").stdout)
    assert [row["reason"].partition(";")[0] for row in named["types"]] == [
        "asked for",
        "",
        "balanced would choose this one",
    ]
    assert sum(seen.sent for seen in hub.downloads()) < 30 << 20, "only headers were read"


@pytest.mark.slow
def test_the_best_type_that_is_not_there_can_be_made(hub: StandIn, pull) -> None:
    add_mixtral(hub, "org/both", "Q5_K_M", "Q4_K_M", more={"model.safetensors": b"x", "config.json": b"{}"})
    add_mixtral(hub, "org/alone", "Q5_K_M", "Q4_K_M")
    asked = ("--profile", "rtx-4090", "--dry-run", "--json")
    both, alone = (json.loads(pull(name, *asked).stdout) for name in ("org/both", "org/alone"))
    assert both["model"] == "org/both:Q4_K_M"
    (note,) = both["notes"]
    assert note.startswith("Q3_K_L would suit this machine better (decode ")
    assert note.endswith("in one pass: mixcli pull org/both --quant Q3_K_L")
    assert {row["type"] for row in both["types"] if row["on_offer"]} == {"Q5_K_M", "Q4_K_M"}
    assert (alone["notes"], len(alone["types"])) == ([], 2)
    refused = pull("org/both", "--profile", "laptop-8gb-gpu", "--ram", "16GiB", "--dry-run")
    assert refused.returncode == 4
    assert "no file of org/both fits on laptop-8gb-gpu, but Q" in refused.stderr
    assert "in one pass: mixcli pull org/both --quant Q" in refused.stderr


def add_mixtral(hub: StandIn, repo: str, *file_types: str, more: dict[str, bytes] | None = None) -> None:
    """Put headers of Mixtral 8x7B's files on the hub, which says that the files are as large as they would be."""
    heads = {f"mixtral.{name}.gguf": small_gguf.large("mixtral", name) for name in file_types}
    files = {name: head for name, (head, _) in heads.items()} | (more or {})
    hub.add(repo, files, sizes={name: size for name, (_, size) in heads.items()})


def test_a_dry_run_tells_and_keeps_nothing(hub: StandIn, pull, home: Path) -> None:
    hub.add("org/tiny-GGUF", FILES, license="cc-by-nc-4.0")
    summary = json.loads(pull("org/tiny-GGUF:q8_0", "--dry-run", "--json").stdout)
    assert summary["files"] == [{"name": "tiny.Q8_0.gguf", "size": len(Q8), "here": 0}]
    assert (summary["download"], summary["disk"]) == (len(Q8), len(Q8))
    assert "not for commercial use" in summary["license"]
    plain = pull("org/tiny-GGUF:q8_0", "--dry-run")
    assert f"tiny.Q8_0.gguf\t{len(Q8) / 1e6:.1f} MB\t0 B" in plain.stdout
    assert not [path for path in (home / "huggingface").rglob("*") if path.is_file()]
    assert sum(seen.sent for seen in hub.downloads()) < 3 << 20, "more than headers were read"


@pytest.mark.slow
def test_a_dry_run_of_a_catalog_name_needs_no_network(hub: StandIn, pull) -> None:
    asked = ("--dry-run", "--json", "--profile", "rtx-4090", "--offline")
    summary = json.loads(pull("mixtral", *asked).stdout)
    assert (summary["model"], summary["files"], summary["fits"]) == ("mixtral:Q3_K_L", [], True)
    (row,) = [row for row in summary["types"] if row["chosen"]]
    assert (row["size"], row["reason"][:17]) == (summary["download"], "chosen: balanced,")
    assert "the Hub was not reached, so sizes are approximate" in summary["notes"][0]
    plain = pull("mixtral:Q8_0", "--dry-run", "--profile", "rtx-3060-12gb", "--offline")
    assert plain.returncode == 0, plain.stderr
    for words in (
        "download\t49.6 GB",
        "license\tApache-2.0: open",
        "the largest quant that fits is Q6_K (38.4 GB)",
        "Q8_0\t49.6 GB\t",
    ):
        assert words in plain.stdout
    assert hub.log == []
    assert pull("mixtral:Q4_K_XL", *asked).returncode == 6, "publishers make more than the quantizer"
    for wrong in (("mixtral:Q9_K",), ("mixtral", "--quant", "Q9_K")):
        refused = pull(*wrong, *asked)
        assert refused.returncode == 2
        assert re.search(r"Q9_K is not a quant; use .*; did you mean Q\d_K", refused.stderr)
    assert pull("org/repo", *asked).returncode == 6
    assert pull("mixtral", "--offline").returncode == 6, "without --dry-run it is refused as before"


def test_a_type_that_is_not_there(hub: StandIn, pull) -> None:
    hub.add("org/tiny-GGUF", FILES)
    done = pull("org/tiny-GGUF:Q2_K")
    assert (done.returncode, "it has Q4_K_M, Q8_0" in done.stderr) == (2, True)
    hub.add("org/nothing", {"README.md": b"hi"})
    assert pull("org/nothing").returncode == 2


def test_a_model_in_parts_is_one_model(hub: StandIn, pull, mixcli: Runner, home: Path) -> None:
    parts = small_gguf.split(3)
    names = [f"Q4_K_M/big-{i + 1:05}-of-00003.gguf" for i in range(3)]
    hub.add("org/big", {**dict(zip(names, parts, strict=True)), "mmproj-F16.gguf": b"x"})
    done = pull("org/big")
    assert done.returncode == 0, done.stderr
    (model,) = listed(mixcli)
    assert model["model"] == "org/big:Q4_K_M"
    assert [Path(path).read_bytes() for path in model["files"]] == parts  # type: ignore[attr-defined]
    assert len({Path(path).parent for path in model["files"]}) == 1, (
        "llama.cpp looks for the parts beside the first"
    )  # type: ignore[attr-defined]
    assert mixcli("verify", "org/big").returncode == 0
    assert mixcli("rm", "org/big", "-y").returncode == 0
    assert not list((home / "huggingface").rglob("*.gguf"))
    assert not list((home / "huggingface/hub/models--org--big/blobs").iterdir())


def test_rm_respects_what_others_need(hub: StandIn, pull, mixcli: Runner, home: Path) -> None:
    hub.add("org/tiny-GGUF", FILES)
    assert pull("org/tiny-GGUF:Q4_K_M").returncode == 0
    assert pull("org/tiny-GGUF:Q4_K_M", "--name", "mine").returncode == 0
    assert mixcli("rm", "mine", "-y").returncode == 0
    assert mixcli("verify", "org/tiny-GGUF").returncode == 0
    snapshots = home / "huggingface/hub/models--org--tiny-GGUF/snapshots"
    old = snapshots / ("b" * 40) / "tiny.Q4_K_M.gguf"
    old.parent.mkdir()
    old.symlink_to(f"../../blobs/{hashlib.sha256(Q4).hexdigest()}")
    done = mixcli("rm", "org/tiny-GGUF", "-y")
    assert done.returncode == 0, done.stderr
    assert "which another model uses" in done.stderr
    assert old.read_bytes() == Q4


def test_a_revision_is_kept_apart(hub: StandIn, pull, mixcli: Runner) -> None:
    repo = hub.add("org/tiny-GGUF", FILES)
    assert pull("org/tiny-GGUF:Q4_K_M@v1").returncode == 0
    assert "already installed" in pull(f"org/tiny-GGUF:Q4_K_M@{repo.commit}").stderr
    done = pull("org/tiny-GGUF:Q4_K_M@v9")
    assert (done.returncode, "has no revision 'v9'" in done.stderr) == (2, True)
    newer = small_gguf.gguf(3_000_000, seed=9)
    hub.add("org/tiny-GGUF", {"tiny.Q4_K_M.gguf": newer}, commit="9" * 40)
    assert "already installed" in pull("org/tiny-GGUF:Q4_K_M").stderr
    assert pull("org/tiny-GGUF:Q4_K_M@main").returncode == 0
    (model,) = listed(mixcli)
    assert (model["revision"], Path(str(model["path"])).read_bytes()) == ("9" * 40, newer)


def test_what_is_pulled_when_nothing_is_named() -> None:
    gib = 1 << 30
    targets = [Target(lambda _, free=free: Machine(free * gib, 8)) for free in (64, 24, 8, 1)]  # type: ignore[misc]
    assert [favorite(target)[0] for target in targets] == ["mixtral", "mixtral", "mistral", "demo"]


def test_a_renamed_repository_is_followed(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("new/name", FILES, private=True)

    def moved(handler: hub_server.Handler) -> bool:
        return handler.reply(307, {"Location": handler.path.replace("old/name", "new/name")})

    hub.fault(moved, lambda seen: "old/name" in seen.path, times=99)
    done = pull("old/name:Q4_K_M", HF_TOKEN="hf_goodtoken")
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in listed(mixcli)] == ["old/name:Q4_K_M"]


@pytest.mark.slow
@pytest.mark.model
def test_a_model_in_parts_is_loaded_whole(
    hub: StandIn, pull, mixcli: Runner, demo_path, tmp_path: Path
) -> None:
    from quantize import Options, convert

    parts = convert(
        demo_path("Q4_K_M"),
        tmp_path / "demo-Q4_K_M.gguf",
        Options(output_type="COPY", split_max_size=200 << 20),
    )
    assert len(parts.paths) > 1
    hub.add("org/parts", {path.name: path.read_bytes() for path in parts.paths})
    done = pull("org/parts")
    assert done.returncode == 0, done.stderr
    answer = mixcli("run", "-m", "org/parts", "What is the capital of France?")
    assert "Paris" in answer.stdout, answer.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>please log in</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "is empty"),
        (bytes(5000), "zero bytes"),
        (Q4[:100_000], "ends"),
        (small_gguf.gguf(keys={"general.architecture": small_gguf.text("gpt2")}), "gpt2"),
        (
            small_gguf.gguf(keys={**small_gguf.metadata(), "llama.expert_used_count": small_gguf.u32(99)}),
            "expert_used_count",
        ),
    ],
)
def test_what_cannot_run_is_refused_from_its_header(hub: StandIn, pull, content: bytes, words: str) -> None:
    data = content + bytes(20_000_000) if content.startswith(b"GGUF") and len(content) < 90_000 else content
    hub.add("org/bad", {"bad.Q4_K_M.gguf": data})
    done = pull("org/bad")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert words in done.stderr
    assert sum(seen.sent for seen in hub.downloads()) < 4 << 20, "it was downloaded all the same"


def test_split_experts_are_joined_when_that_is_wanted(hub: StandIn, pull, mixcli: Runner, home: Path) -> None:
    old = small_gguf.gguf(split_experts=True)
    hub.add("TheOld/old-GGUF", {"old.F16.gguf": old})
    refused = pull("TheOld/old-GGUF")
    assert refused.returncode == 5
    assert "--repair" in refused.stderr
    assert sum(seen.sent for seen in hub.downloads()) <= 1 << 20
    done = pull("TheOld/old-GGUF", "--repair")
    assert done.returncode == 0, done.stderr
    card = json.loads(mixcli("show", "TheOld/old-GGUF", "--json").stdout)
    assert (card["experts"], "experts" in card["types"]) == (2, True)
    assert mixcli("verify", "TheOld/old-GGUF").returncode == 0
    assert not list((home / "huggingface").rglob("*.gguf")), "the old file is of no use any more"


def test_a_download_that_cannot_fit_is_refused_before_it_starts(hub: StandIn, pull) -> None:
    hub.add("org/huge", {"huge.Q4_K_M.gguf": Q4}, sizes={"huge.Q4_K_M.gguf": 1 << 49})
    done = pull("org/huge:Q4_K_M")
    assert (done.returncode, "on the disk of" in done.stderr) == (4, True), done.stderr
    assert sum(seen.sent for seen in hub.downloads()) <= 1 << 20


def test_the_catalog_leads_to_its_repository(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("bartowski/Mistral-7B-Instruct-v0.3-GGUF", {"Mistral-7B-Instruct-v0.3-Q4_K_M.gguf": Q4})
    done = pull("mistral")
    assert done.returncode == 0, done.stderr
    (model,) = listed(mixcli)
    assert (model["model"], model["license"]) == ("mistral:Q4_K_M", "Apache-2.0")
    card = json.loads(mixcli("show", "mistral", "--json").stdout)
    assert card["origin"].startswith("bartowski/Mistral-7B-Instruct-v0.3-GGUF@")
    assert card["prompt"] == "Mistral v3"


def test_offline_what_is_here_works_and_what_is_missing_is_listed(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("org/tiny-GGUF", FILES)
    hub.fault(
        hub_server.status(500), lambda seen: hub_server.is_download(seen) and seen.start >= 1 << 20, times=99
    )
    assert pull("org/tiny-GGUF:Q4_K_M", MIXCLI_PATIENCE="1").returncode == 6
    n_requests = len(hub.log)
    done = pull("org/tiny-GGUF:Q4_K_M", MIXCLI_OFFLINE="1")
    assert done.returncode == 6
    assert f"tiny.Q4_K_M.gguf (1.0 MB of {len(Q4) / 1e6:.1f} MB downloaded)" in done.stderr
    assert "its download is incomplete" in mixcli("show", "org/tiny-GGUF:Q4_K_M").stderr
    hub.faults.clear()
    assert pull("org/tiny-GGUF:Q4_K_M").returncode == 0
    n_after = len(hub.log)
    assert pull("org/tiny-GGUF:Q4_K_M", "--offline").returncode == 0
    assert pull("org/else:Q4_K_M", HF_HUB_OFFLINE="1").returncode == 6
    assert len(hub.log) == n_after > n_requests


def test_a_cache_that_cannot_be_written_is_noticed_before_the_network(hub: StandIn, pull) -> None:
    hub.add("org/tiny-GGUF", FILES)
    done = pull("org/tiny-GGUF:Q4_K_M", HF_HOME="/proc/nowhere")
    assert done.returncode == 1
    assert "/proc/nowhere: this folder cannot be created; set HF_HOME to" in done.stderr
    assert hub.log == []
