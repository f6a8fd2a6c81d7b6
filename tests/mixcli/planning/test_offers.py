"""What is offered in place of a model that is not installed: computed here, for the wish, without the network."""

import json
import socket
from pathlib import Path

import pytest

from mixcli.errors import NotInstalled
from mixcli.planning.launch import installed
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.offers import with_offer
from profiles.errors import DoesNotFit
from profiles.request import PlanRequest
from tests.conftest import Runner
from tests.support import small_gguf


def offer(name: str | None, profile: str, n_ctx: int | None = None, vram: int | None = None) -> str:
    with pytest.raises(NotInstalled) as caught:
        installed(name, LoadOptions(PlanRequest(n_ctx=n_ctx), profile, vram))
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, home: object) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: str) -> None:
        assert self.family == socket.AF_UNIX, "an offer asks nothing of the network"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_the_offer_names_the_chosen_file_its_size_and_its_rate() -> None:
    assert offer("mixtral", "rtx-4090") == (
        "mixtral is not installed; `mixcli pull mixtral --profile rtx-4090` downloads Q3_K_L, 24.2 GB, about 62 tok/s on rtx-4090"
    )


def test_a_named_type_is_offered_where_it_fits_and_the_chosen_one_where_it_does_not() -> None:
    assert "`mixcli pull mixtral:Q5_K_M --profile cpu` downloads Q5_K_M, 33.2 GB" in offer(
        "mixtral:q5_k_m", "cpu"
    )
    assert offer("mixtral:Q8_0", "cpu-avx2-32gb").startswith(
        "mixtral:Q8_0 is not installed and does not fit on cpu-avx2-32gb (49.6 GB); "
        "`mixcli pull mixtral --profile cpu-avx2-32gb` downloads Q4_K_M, 28.4 GB"
    )
    assert "run `mixcli pull mixtral:ODD --profile cpu`" in offer("mixtral:ODD", "cpu")


def test_where_no_type_fits_the_largest_model_that_does_is_offered() -> None:
    words = offer("mixtral-8x22b", "rtx-3090")
    assert "no quant of it fits on rtx-3090: the smallest, Q2_K" not in words, "60 GiB and a card hold it"
    words = offer("mixtral-8x22b", "laptop-8gb-gpu")
    assert "no quant of it fits on laptop-8gb-gpu: the smallest, Q2_K, is 52.1 GB" in words
    assert "`mixcli pull mixtral --profile laptop-8gb-gpu` downloads Q" in words


def test_without_any_model_the_catalogs_best_and_the_demo_are_offered() -> None:
    words = offer(None, "rtx-4090")
    assert "no model is installed; `mixcli pull --profile rtx-4090` downloads mixtral:Q3_K_L" in words
    assert words.endswith("`mixcli pull demo` makes a small one offline")


@pytest.mark.slow
def test_the_offer_is_made_for_what_was_asked() -> None:
    assert "Q3_K_L" in offer("mixtral", "rtx-4090", 4096)
    assert "Q3_K_L" not in offer("mixtral", "rtx-4090", 32768), "its context takes room on the card"
    assert "--ctx 32768 --profile rtx-4090 --vram 12GiB`" in offer("mixtral", "rtx-4090", 32768, 12 << 30)
    with pytest.raises(DoesNotFit, match="trained context of 32768"):
        offer("mixtral", "rtx-4090", 40000)


def test_what_has_no_known_dimensions_keeps_its_sentence() -> None:
    for name in ("demo", "org/repo:Q4_K_M"):
        missing = NotInstalled(f"{name} is not installed", "run `mixcli pull`", name)
        assert with_offer(missing, LoadOptions(PlanRequest())) is missing


def test_a_wish_is_written_as_its_options() -> None:
    wish = LoadOptions(PlanRequest(2048, "q8_0", from_disk=True), "auto", 12 << 30, 1000, ("127.0.0.1:1",))
    assert wish.options == "--ctx 2048 --vram 12GiB --ram 1000 --kv q8_0 --worker 127.0.0.1:1 --from-disk"
    assert (LoadOptions(PlanRequest()).options, LoadOptions(PlanRequest()).where) == ("", "here")


@pytest.mark.parametrize(
    "args",
    [
        ("run", "-m", "mistral", "hi"),
        ("chat", "-m", "mistral", "hi"),
        ("batch", "-", "-m", "mistral", "--prompt", "{{ text }}"),
        ("serve", "-m", "mistral", "--port", "0"),
    ],
)
def test_every_command_that_loads_a_model_makes_the_offer(mixcli: Runner, args: tuple[str, ...]) -> None:
    done = mixcli(*args, "--profile", "rtx-3090", stdin='{"text": "a"}\n')
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "`mixcli pull mistral --profile rtx-3090` downloads Q6_K, 5.9 GB, about " in done.stderr


def test_show_tells_what_a_catalog_name_is_before_it_is_pulled(mixcli: Runner) -> None:
    shown = json.loads(mixcli("show", "mistral:Q4_K_M", "--json").stdout)
    assert (shown["model"], shown["installed"], shown["context"]) == ("mistral", False, 32768)
    assert shown["types"]["Q4_K_M"] > 4e9
    assert shown["pull"].startswith(f"`mixcli pull mistral` downloads {shown['suits']}, ")
    plain = mixcli("show", "mistral")
    assert (plain.returncode, plain.stderr) == (0, "")
    for row in (
        "installed\tno",
        "license\tApache-2.0: open",
        "format\tGGUF",
        "origin\tbartowski/",
        "types\tQ8_0 7.7 GB, ",
    ):
        assert row in plain.stdout
    assert "Q4_K_M, Q8_0, BF16" in mixcli("show", "demo").stdout
    assert mixcli("show", "org/repo").returncode == 2


@pytest.mark.slow
def test_a_plan_without_a_name_is_for_the_default_or_the_catalogs_best(
    mixcli: Runner, tmp_path: Path
) -> None:
    ask = ("plan", "--profile", "4090", "--json")
    best = mixcli(*ask)
    assert json.loads(best.stdout)["model"] == "mixtral:Q3_K_L"
    assert "planning mixtral, the best catalog model that fits on 4090" in best.stderr
    nothing = mixcli("plan", "--ram", "1GiB")
    assert (nothing.returncode, "`mixcli pull demo`" in nothing.stderr) == (4, True)
    for name in ("one", "two"):
        path = small_gguf.write(tmp_path / f"{name}-F16.gguf", small_gguf.gguf())
        assert mixcli("import", str(path), "--name", name).returncode == 0
        found = mixcli(*ask)
        expected = "one:F16" if name == "one" else "mixtral:Q3_K_L"  # of two models none stands out
        assert json.loads(found.stdout)["model"] == expected, found.stderr
    assert mixcli("default", "two").returncode == 0
    found = mixcli(*ask)
    assert (json.loads(found.stdout)["model"], found.stderr) == ("two:F16", "")
