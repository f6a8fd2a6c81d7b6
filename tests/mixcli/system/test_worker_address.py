"""Addresses of workers: what is one, and that two ways to write one are equal."""

import pytest

from mixcli.errors import UsageError
from mixcli.system.worker_address import worker_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.1.20:50052", "192.168.1.20:50052"),
        ("Tower.local:50052", "tower.local:50052"),
        (" tower_2:1 ", "tower_2:1"),
        (":50052", "127.0.0.1:50052"),
        ("50052", "127.0.0.1:50052"),
        ("050052", None),
        ("bücher.example:80", "bücher.example:80"),
    ],
)
def test_ways_to_write_an_address(text: str, address: str | None) -> None:
    if address is None:
        with pytest.raises(UsageError):
            worker_address(text)
    else:
        assert worker_address(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "HOST:PORT"),
        ("a:0", "from 1 to 65535"),
        ("a:70000", "from 1 to 65535"),
        ("a:-1", "from 1 to 65535"),
        ("a:٣٤", "from 1 to 65535"),
        ("a..b:80", "HOST:PORT"),
        (".a:80", "HOST:PORT"),
        ("a b:80", "HOST:PORT"),
        ("a/b:80", "HOST:PORT"),
        ("a\nb:80", "HOST:PORT"),
        (f"{'x' * 64}:80", "HOST:PORT"),
        (f"{'x.' * 200}y:80", "HOST:PORT"),
        ("http://a:80", "leave out the scheme"),
        ("[::1]:50052", "no IPv6"),
        ("::1", "no IPv6"),
        ("fe80::1%eth0:50052", "no IPv6"),
        ("[fe80::1%eth0]:50052", "no IPv6"),
        ("", "HOST:PORT"),
    ],
)
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(UsageError, match="invalid worker address") as failed:
        worker_address(text)
    assert words in str(failed.value)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="no user and no password") as failed:
        worker_address("http://me:secret@tower:50052")
    assert "secret" not in str(failed.value)
