"""A model of the store that cannot be used is named by every command, and can be removed."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.cli import cli
from mixcli.errors import DoesNotFit, IntegrityError, MixcliError, UsageError
from mixcli.planning.doctor import _store
from mixcli.planning.machines import machine_of
from mixcli.planning.report import subject_of
from mixcli.pull.quant_choice import Target
from mixcli.store import damaged, manifest, removal, verification
from mixcli.store.hashing import Report
from mixcli.store.import_ import import_model
from mixcli.store.store import StoredModel
from mixcli.store.verification import Verdict
from mixcli.system import paths
from mixcli.system.os_errors import explain
from tests.support import small_gguf


def quiet(_done: float, _total: float, _stage: str = "") -> None:
    pass


@pytest.fixture
def file(home: Path, tmp_path: Path) -> Path:
    return small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf())


def cut(file: Path) -> None:
    os.truncate(file, 10)


def spoil(_file: Path) -> None:
    (home,) = manifest.homes()
    (home / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "words"),
    [(Path.unlink, "is missing"), (cut, "has 10 of "), (spoil, "its manifest cannot be read")],
)
def test_it_is_named_and_can_be_removed(
    file: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], words: str
) -> None:
    import_model(file, None, False, quiet)
    harm(file)
    cli.main(["list"], standalone_mode=False)
    said = capsys.readouterr()
    assert "tiny:F16: " in said.err
    assert words in said.err
    for args in (["verify"], ["verify", "tiny"], ["show", "tiny:f16"], ["show"]):
        with pytest.raises(IntegrityError, match=f"tiny:F16: .*{words}"):
            cli.main(args, standalone_mode=False)
    assert _store().state == "warn"
    assert words in _store().words
    cli.main(["rm", "tiny", "--yes"], standalone_mode=False)
    assert (manifest.homes(), damaged.damaged()) == ([], [])
    assert file.exists() == (harm is not Path.unlink)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "\ud800"), ("type", "x\udcff"), ("origin", "\udfff"), ("license", "\0"), ("path", "/\0"), ("path", "\ud800")],
)  # fmt: skip
def test_one_that_was_edited_leaves_the_others(
    file: Path, capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    import_model(file, "sound", False, quiet)
    import_model(file, "edited", False, quiet)
    path = paths.models_dir() / "edited--F16" / manifest.NAME
    about = json.loads(path.read_text())
    (about["files"][0] if field == "path" else about)[field] = value
    path.write_text(json.dumps(about))
    cli.main(["list"], standalone_mode=False)
    said = capsys.readouterr()
    assert "sound:F16" in said.out
    assert "edited:F16: its manifest cannot be read" in said.err
    with pytest.raises(IntegrityError, match="remove it: mixcli rm edited:F16"):
        cli.main(["show", "edited"], standalone_mode=False)


def test_one_without_permission_is_not_to_be_removed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _limit: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    import_model(file, None, False, quiet)
    monkeypatch.setattr(manifest, "read_regular", refuse)
    monkeypatch.setattr(damaged, "read_regular", refuse)
    (one,) = damaged.damaged()
    assert one.sentence.endswith("manifest.json: Permission denied); change its permissions")


def test_one_that_cannot_be_read_leaves_the_others_checked(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: StoredModel, report: Report) -> list[Verdict]:
        if model.label == "a:F16":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(model.path))
        return genuine(model, report)

    genuine = verification.verify
    for name in ("a", "b"):
        import_model(file, name, False, quiet)
    monkeypatch.setattr(verification, "verify", refuse)
    with pytest.raises(MixcliError, match=r"tiny\.F16\.gguf: permission denied"):
        cli.main(["verify"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "a:F16\ttiny.F16.gguf\tUNREADABLE" in said
    assert "b:F16\ttiny.F16.gguf\tsound" in said


def test_a_program_sees_a_damaged_model_too(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_model(file, "sound", True, quiet)
    import_model(file, "torn", False, quiet)
    import_model(file, "odd", True, quiet)
    file.unlink()
    (manifest.homes()[0] / "manifest.json").write_text("{")  # of "odd"
    cli.main(["list", "--json"], standalone_mode=False)
    said = capsys.readouterr()
    rows = {row["model"]: row for row in json.loads(said.out)}
    assert set(rows) == {"sound:F16", "torn:F16", "odd:F16"}
    assert "damaged" not in rows["sound:F16"]
    assert rows["torn:F16"]["damaged"].startswith(f"torn:F16: {file} is missing; ")
    assert rows["torn:F16"]["size"] == rows["sound:F16"]["size"]
    assert "its manifest cannot be read" in rows["odd:F16"]["damaged"]
    assert rows["odd:F16"].keys() == rows["torn:F16"].keys() <= {*rows["sound:F16"], "damaged"}
    assert "is missing" in said.err


def test_what_removing_frees_and_why_a_file_stays(file: Path) -> None:
    import_model(file, "linked", True, quiet)
    assert removal.plan_for("linked").size == 0  # a hard link: the user's own name holds the bytes
    file.unlink()
    assert removal.plan_for("linked").size == len(small_gguf.gguf())
    small_gguf.write(file, small_gguf.gguf())
    import_model(file, "one", False, quiet)
    assert removal.plan_for("one").kept == ((file, "which was imported in place"),)
    import_model(file, "two", False, quiet)
    with pytest.raises(UsageError, match="belongs to several models: one:F16 and two:F16"):
        removal.plan_for(str(file))


def test_a_flipped_bit_of_an_imported_file_is_not_pulled(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_model(file, None, False, quiet)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"mixcli rm tiny:F16 && mixcli import {file} --name tiny"):
        cli.main(["verify", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)[0]["sound"] is False


def test_a_failed_copy_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr("mixcli.store.import_.os.link", no_link)
    full = shutil.disk_usage(file)._replace(free=10)
    monkeypatch.setattr("mixcli.store.import_.shutil.disk_usage", lambda _path: full)
    with pytest.raises(DoesNotFit, match=r"the copy needs .* without --copy"):
        import_model(file, None, True, quiet)
    assert list(paths.models_dir().iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pull", "demo@nosuch"], "demo is made on this machine and has no revisions; remove @nosuch"),
        (["pull", "./nosuch"], r"the folder \./nosuch does not exist"),
    ],
)
def test_what_cannot_be_pulled(home: Path, args: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cli.main(args, standalone_mode=False)


def test_only_the_user_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXCLI_HOME", str(tmp_path / "new"))
    file = small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf())
    import_model(file, None, False, quiet)
    (home,) = manifest.homes()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (home / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_named_by_the_file(home: Path) -> None:
    error = OSError(errno.ENOSPC, "full", str(paths.config_dir() / "default-model"))
    assert "default-model; free some, or set MIXCLI_HOME to a folder" in str(explain(error))


def test_a_type_that_is_here_is_planned_from_its_file(file: Path) -> None:
    import_model(file, None, False, quiet)
    subject = subject_of("tiny", "f16", Target(lambda _shapes: machine_of("mac")))
    assert (subject.label, subject.path) == ("tiny:F16", file)
