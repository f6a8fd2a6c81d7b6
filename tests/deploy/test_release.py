"""What a release checks: tag, version and changelog; and the formula that it writes."""

import hashlib
from pathlib import Path

import pytest

from deploy import release
from tests.conftest import ROOT

CHANGELOG = "# Changelog\n\n## 0.2.0 (2026-12-24)\n\n- New.\n\n### More\n\n- Better.\n\n## 0.1.0 (2026-10-01)\n\n- First.\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "mixcli").mkdir()
    (tmp_path / "mixcli/__init__.py").write_text('"""mixcli."""\n\n__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "deploy/homebrew").mkdir(parents=True)
    (tmp_path / "deploy/homebrew/mixcli.rb").write_text(
        (ROOT / "deploy/homebrew/mixcli.rb").read_text("utf-8")
    )
    return tmp_path


def test_the_notes_are_the_section_of_the_tag(tree: Path) -> None:
    assert release.check("v0.2.0", tree) == "0.2.0"
    notes = release.notes("v0.2.0", tree)
    assert notes.startswith("- New.\n\n### More\n\n- Better.\n\nInstall or update: `pip install -U")
    assert "First" not in notes


@pytest.mark.parametrize(
    ("tag", "changelog", "said"),
    [
        ("v0.3.0", CHANGELOG, "the tag is v0.3.0, but mixcli/__init__.py has 0.2.0"),
        ("0.2.0", CHANGELOG, "tag v0.2.0, or change the version"),
        ("v0.2.0", CHANGELOG.replace("0.2.0 (2026-12-24)", "Unreleased"), "rename *Unreleased*"),
        ("v0.2.0", CHANGELOG.replace(" (2026-12-24)", ""), "has no date"),
        ("v0.2.0", "# Changelog\n\n## 0.2.0 (2026-12-24)\n\n## 0.1.0 (2026-10-01)\n\n- First.\n", "is empty"),
    ],
)
def test_what_does_not_agree_is_refused(tree: Path, tag: str, changelog: str, said: str) -> None:
    (tree / "CHANGELOG.md").write_text(changelog)
    with pytest.raises(SystemExit) as refused:
        release.notes(tag, tree)
    assert said in str(refused.value)


def test_the_version_of_this_tree_is_found() -> None:
    assert f'"{release.version_of(ROOT)}"' in (ROOT / "mixcli/__init__.py").read_text("utf-8")


def test_the_formula_has_the_address_and_the_checksum(tree: Path, tmp_path: Path) -> None:
    sdist = tmp_path / "mixcli-0.2.0.tar.gz"
    sdist.write_bytes(b"a source distribution")
    formula = release.formula(sdist, tree)
    assert '/m/mixcli/mixcli-0.2.0.tar.gz"' in formula
    assert f'sha256 "{hashlib.sha256(b"a source distribution").hexdigest()}"' in formula
    assert "0.1.0" not in formula
