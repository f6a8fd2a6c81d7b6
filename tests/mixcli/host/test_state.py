"""The state of a host: what it reports of itself does not depend on the file that it has loaded."""

import asyncio
from pathlib import Path

from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.host.state import HostState
from profiles.placement import Placement


def test_the_size_is_that_of_the_file_that_was_loaded(tmp_path: Path) -> None:
    """It is read once: later the file may be gone, another one, or behind a server that does not answer."""

    async def sizes() -> list[int | None]:
        path = tmp_path / "model.gguf"
        path.write_bytes(b"a model")
        state = HostState(HostSpec(HostName(path, "model", "{}"), LoadPlan(Placement(n_ctx=256))))
        found = [state.health().size]
        path.write_bytes(b"another model")
        found.append(state.health().size)
        path.unlink()
        return [*found, state.health().size]

    assert asyncio.run(sizes()) == [7, 7, 7]
