"""The wheel and the source distribution: all of the three packages, nothing of tests and bench, and a program that runs from them."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PACKAGES = ("mixcli", "quantize", "profiles")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both, as pip and build make them, but without a download of the build backend."""
    pytest.importorskip("hatchling", reason="`make setup` installs it")
    folder = tmp_path_factory.mktemp("dist")
    for kind in ("wheel", "sdist"):
        words = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return folder


def sources() -> set[str]:
    """Return the files of the packages that git knows or would take, not those that it ignores."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in said.splitlines() if (ROOT / name).exists()}


def test_the_wheel_has_every_file_of_the_packages_and_no_other(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources()
    assert {"profiles/models.toml", "mixcli/store/catalog.toml"} <= names


def test_the_source_distribution_builds_the_wheel_and_has_no_tests(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "deploy/Dockerfile"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops <= {
        *PACKAGES,
        "deploy",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "PKG-INFO",
        ".gitignore",
    }


def test_the_program_runs_from_the_wheel_alone(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    env = {
        **os.environ,
        "PYTHONPATH": str(place),
        "MIXCLI_HOME": str(tmp_path / "home"),
        "MIXCLI_MEASURE": "off",
    }
    code = "import mixcli, sys; print(mixcli.__file__, file=sys.stderr); from mixcli.__main__ import main; main()"
    words = [sys.executable, "-P", "-c", code, "plan", "mixtral:Q4_K_M", "--profile", "4090"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(str(place))
    assert "experts" in done.stdout
