"""A tiny model behind the host's app, in this process."""

from collections.abc import Iterator

import pytest

from tests.support.app import App, tiny_app


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for all tests of a file."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(folder / "home"))
        patch.setenv("MIXCLI_KV_DISK", "0")
        with tiny_app(folder) as app:
            yield app
