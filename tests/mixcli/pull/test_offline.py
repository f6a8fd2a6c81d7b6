"""MIXCLI_OFFLINE holds for every command."""

from tests.conftest import Runner
from tests.support.hub_server import StandIn


def test_a_plan_of_a_repository_contacts_no_hub(hub: StandIn, online: dict[str, str], mixcli: Runner) -> None:
    planned = mixcli("plan", "org/tiny-GGUF:Q8_0", **online, MIXCLI_OFFLINE="yes")
    assert (planned.returncode, "MIXCLI_OFFLINE) is set" in planned.stderr) == (6, True), planned.stderr
    assert hub.log == []
    assert mixcli("plan", "org/tiny-GGUF:Q8_0", **online, MIXCLI_OFFLINE="maybe").returncode == 2
