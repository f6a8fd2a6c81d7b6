"""A model that cannot be planned for another reason than memory: nothing is unloaded for it."""

import asyncio
from pathlib import Path

import pytest

from mixcli.errors import UsageError
from mixcli.serve.eviction import Ledger
from mixcli.serve.loader import Planned
from mixcli.serve.model_names import ServedModel
from mixcli.serve.model_state import State, Unavailable
from tests.mixcli.serve.test_model_pool import Shelf, opened, say_nothing


class Odd(Shelf):
    """Plans every model but c, whose profile was removed."""

    def plan(self, model: ServedModel, left: Ledger) -> Planned:
        if model.label == "c":
            raise UsageError("profile 'p' not found")
        return super().plan(model, left)


def test_nothing_is_unloaded_for_a_model_that_cannot_be_planned(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder: Path = tmp_path_factory.mktemp("p")

    async def main() -> None:
        async with asyncio.timeout(60), opened(Odd(folder)) as (pool, lifecycle):
            async with pool.lease("a", say_nothing):
                pass
            with pytest.raises(Unavailable, match="c cannot be loaded: profile 'p' not found"):
                async with pool.lease("c", say_nothing):
                    pass
            assert lifecycle.slots["a"].state is State.LOADED

    asyncio.run(main())
