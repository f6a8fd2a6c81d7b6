#!/usr/bin/env python3
"""What a release checks and writes; .github/workflows/release.yml calls it, and a person may.

python3 deploy/release.py check v0.2.0                        the tag, the version and the changelog agree
python3 deploy/release.py notes v0.2.0                        the changelog's section, for the release's page
python3 deploy/release.py formula dist/mixcli-0.2.0.tar.gz    the Homebrew formula of that source distribution
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^## (\S+)(?: \((\d{4}-\d\d-\d\d)\))?$", re.M)  # ## 0.2.0 (2026-12-24)


def version_of(root: Path) -> str:
    """Return the version of the code."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "mixcli/__init__.py").read_text("utf-8"), re.M)
    assert found is not None
    return found[1]


def section(changelog: str, version: str) -> str:
    """Return what the changelog says of a version, without its heading; SystemExit where it says nothing, or not when."""
    headings = list(HEADING.finditer(changelog))
    for heading, behind in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == version:
            if heading[2] is None:
                sys.exit(
                    f"CHANGELOG.md: the heading of {version} has no date; write `## {version} (YYYY-MM-DD)`"
                )
            if text := changelog[heading.end() : behind.start() if behind else None].strip():
                return text
            sys.exit(f"CHANGELOG.md: the section of {version} is empty")
    sys.exit(f"CHANGELOG.md has no heading `## {version} (YYYY-MM-DD)`; rename *Unreleased*")


def check(tag: str, root: Path = ROOT) -> str:
    """Return the version of a tag; SystemExit where the code or the changelog has another one."""
    version = version_of(root)
    if tag != f"v{version}":
        sys.exit(
            f"the tag is {tag}, but mixcli/__init__.py has {version}; tag v{version}, or change the version"
        )
    section((root / "CHANGELOG.md").read_text("utf-8"), version)
    return version


def notes(tag: str, root: Path = ROOT) -> str:
    """Return the text for a release's page."""
    text = section((root / "CHANGELOG.md").read_text("utf-8"), check(tag, root))
    return f"{text}\n\nInstall or update: `pip install -U 'mixcli[demo,fast]'`; other ways are in `docs/install.md`."


def formula(sdist: Path, root: Path = ROOT) -> str:
    """Return the Homebrew formula with the address on PyPI and the checksum of a source distribution."""
    text = (root / "deploy/homebrew/mixcli.rb").read_text("utf-8")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    text = re.sub(r"mixcli-[^/\"]+\.tar\.gz\"", f'{sdist.name}"', text)
    return re.sub(r'sha256 "[0-9a-f]{64}"', f'sha256 "{digest}"', text)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "notes", "formula"):
        sys.exit(__doc__)
    what, given = sys.argv[1:]
    said = check(given) if what == "check" else notes(given) if what == "notes" else formula(Path(given))
    sys.stdout.write(f"{said.rstrip()}\n")
