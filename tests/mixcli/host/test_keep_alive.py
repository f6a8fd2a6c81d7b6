"""How long a model stays."""

import asyncio
import math

from mixcli.host.keep_alive import KeepAlive


async def _gone_within(keep_alive: KeepAlive, seconds: float) -> bool:
    waiting = asyncio.create_task(keep_alive.wait_until_unwanted())
    done, _ = await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()
    return bool(done)


def test_an_idle_model_goes_after_its_time() -> None:
    assert asyncio.run(_gone_within(KeepAlive(keep_alive=0.05), 60))


def test_a_model_in_use_stays_and_the_last_guest_decides() -> None:
    async def story() -> None:
        keep_alive = KeepAlive(keep_alive=0.01)
        with keep_alive.client(keep_alive=100):
            with keep_alive.client(keep_alive=0):
                pass
            assert keep_alive.expires_in == math.inf
            assert not await _gone_within(keep_alive, 0.1)
        assert 90 < keep_alive.expires_in <= 100
        with keep_alive.client(keep_alive=0):
            pass
        assert await _gone_within(keep_alive, 60)

    asyncio.run(story())


def test_a_guest_that_says_nothing_keeps_the_time_and_starts_it_anew() -> None:
    async def story() -> None:
        keep_alive = KeepAlive(keep_alive=50)
        with keep_alive.client():
            pass
        assert 40 < keep_alive.expires_in <= 50

    asyncio.run(story())


def test_below_zero_means_for_ever() -> None:
    keep_alive = KeepAlive(keep_alive=-1)
    assert keep_alive.expires_in == math.inf
    assert not asyncio.run(_gone_within(keep_alive, 0.05))


def test_leaving_wakes_those_who_wait_for_the_end() -> None:
    async def story() -> None:
        keep_alive = KeepAlive(keep_alive=1000)
        waiting = asyncio.create_task(keep_alive.wait_until_unwanted())
        await asyncio.sleep(0)
        with keep_alive.client(keep_alive=0):
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting, 60)

    asyncio.run(story())
