"""The self-test: a child that dies switches repacking off, once and remembered."""

import sys
from pathlib import Path

import pytest

from mixcli.errors import MixcliError
from mixcli.llama import selftest
from mixcli.llama.selftest import CRASH_SWITCH, NOTE, checked
from profiles.placement import Placement


def forbid_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")


def test_a_build_that_works_changes_nothing_and_is_tried_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(Placement()) == (Placement(), None)
    forbid_children(monkeypatch)
    assert checked(Placement()) == (Placement(), None)


def test_a_build_that_dies_with_repacking_goes_on_without_and_says_so_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CRASH_SWITCH, "1")
    assert checked(Placement(n_ctx=77)) == (Placement(n_ctx=77, repack=False), NOTE)
    forbid_children(monkeypatch)
    assert checked(Placement()) == (Placement(repack=False), None)
    monkeypatch.delenv(CRASH_SWITCH)
    with pytest.raises(FileNotFoundError):  # what was learnt under the switch does not count without it
        checked(Placement())


def test_nothing_is_tried_where_repacking_is_off_already(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_children(monkeypatch)
    assert checked(Placement(repack=False)) == (Placement(repack=False), None)


def test_another_library_or_cpu_is_tried_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked(Placement())
    monkeypatch.setattr(selftest, "_cpu", lambda: "flags: another")
    forbid_children(monkeypatch)
    with pytest.raises(FileNotFoundError):
        checked(Placement())


def test_a_damaged_memory_is_only_forgotten(home: Path) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "selftest.json").write_text('{"a": ')
    assert checked(Placement()) == (Placement(), None)


def test_a_build_that_always_dies_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MixcliError, match="crashes on this CPU"):
        checked(Placement())
