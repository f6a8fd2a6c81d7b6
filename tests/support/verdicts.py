"""What llama.cpp's self-test found on this CPU, lent to the homes of other tests: each home is new and would run it again, for a second.

The file is the product's own cache, with a key for this library and this CPU; only the verdict that all is well is lent. The self-test
itself is for the tests in homes without it: tests/mixcli/llama/test_selftest.py, and those that set MIXCLI_SELFTEST_CRASH, which has
a key of its own.
"""

import json
from contextlib import suppress
from pathlib import Path

from mixcli.system.json_cache import replace_text

KNOWN = Path(__file__).resolve().parents[2] / "build" / "test-selftest.json"
PLACE = Path("cache", "selftest.json")  # in a home


def lend(home: Path) -> None:
    """Write what is known into a home, which need not exist yet."""
    with suppress(FileNotFoundError):
        text = KNOWN.read_text("utf-8")
        for folder in (home, (home / PLACE).parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / PLACE).write_text(text, "utf-8")


def keep(home: Path) -> None:
    """Keep what a command or a host found in a home, for the homes of later tests."""
    with suppress(OSError, ValueError):
        known = json.loads(KNOWN.read_text("utf-8")) if KNOWN.exists() else {}
        found = json.loads((home / PLACE).read_text("utf-8"))
        new = {key: True for key, works in found.items() if works is True and key not in known}
        if new:
            KNOWN.parent.mkdir(exist_ok=True)
            replace_text(KNOWN, json.dumps({**known, **new}) + "\n")
