"""The queue in front of the engine has an end, also before the model is loaded."""

import asyncio
from pathlib import Path

import pytest

from mixcli.engine.sampling import SamplingParams
from mixcli.errors import Busy
from mixcli.host.call import Call, ChatQuestion
from mixcli.host.loop import MAX_CALLS, EngineLoop
from mixcli.host.protocol.host_name import HostName
from mixcli.host.protocol.host_spec import HostSpec, LoadPlan
from mixcli.prompts.messages import Message
from profiles.placement import Placement


def test_calls_are_bounded_wherever_they_wait(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """While the model is loaded all of them wait."""
    spec = HostSpec(HostName(home / "a.gguf", "a", "{}"), LoadPlan(Placement(n_ctx=256)))
    loop = EngineLoop(spec, lambda: None)
    events = asyncio.new_event_loop()
    question = ChatQuestion((Message("user", "Hi"),), SamplingParams())
    calls = [Call(f"c{i}", question, events) for i in range(MAX_CALLS + 1)]
    try:
        for call in calls[:-1]:
            loop.submit(call)
        with pytest.raises(Busy, match=f"{MAX_CALLS:,} requests are queued already; retry in a few seconds"):
            loop.submit(calls[-1])
    finally:
        loop.close(0)
        events.close()
    assert "Traceback" not in capfd.readouterr().err, "what waits when a host ends is no bug"
