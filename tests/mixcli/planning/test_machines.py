"""A load for a named profile computes only on devices that this machine has."""

from pathlib import Path

import pytest

from mixcli.errors import UsageError
from mixcli.planning import cpu_rates
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import check_devices, detected_profile
from mixcli.system import hardware, json_cache
from mixcli.system.hardware import gpu_backends
from profiles.profile_files import load_profile
from profiles.request import PlanRequest
from tests.conftest import Runner
from tests.support.tiny_models import tiny_model


@pytest.mark.skipif("cuda" in gpu_backends(), reason="this machine may have the card")
def test_a_load_for_a_card_that_is_not_here_is_refused(mixcli: Runner, tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "tiny.gguf"))
    for arguments in (("run", "-m", model, "hi"), ("imatrix", model, "-o", str(tmp_path / "out.gguf"))):
        done = mixcli(*arguments, "--profile", "rtx-4090")
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert (
            "--profile rtx-4090 plans with RTX 4090, which this machine does not have; remove --profile, "
            "or estimate with `mixcli plan --profile rtx-4090`" in done.stderr
        )


def test_what_the_host_computes_needs_no_card() -> None:
    options = LoadOptions(PlanRequest(), "cpu")
    check_devices(["host"], options)
    with pytest.raises(UsageError, match="plans with Vulkan7"):
        check_devices(["host", "Vulkan7"], options)


@pytest.mark.parametrize("decode", [123.44, 1.0], ids=["a product is faster than memory", "memory is faster"])
def test_a_detected_profile_is_read_and_promises_no_memory_that_is_not_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, decode: float
) -> None:
    rates = {"decode": decode, "experts": [1.0] * 3, "dense": [1.0] * 3}
    json_cache.update("rates", lambda known: known.update({cpu_rates._key(): {"Q4_0": rates}}))
    free = 23_577_886_000  # 21.96 GiB
    monkeypatch.setattr(hardware, "memory_free", lambda: free)
    folder = home / "config/profiles"
    folder.mkdir(parents=True)
    (folder / "here.toml").write_text(detected_profile())
    machine = load_profile("here", folder).machine()
    assert free - (1 << 30) // 90 < machine.bytes_free <= hardware.this_machine().bytes_free <= free
    assert machine.bandwidth >= decode
