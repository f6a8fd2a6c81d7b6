"""The Python blocks of docs/clients.md as main modules, here because the other files have imported their packages: a dozen seconds for a process."""

import contextlib
import io
import json
import os
import traceback
from pathlib import Path


def test_every_block_is_run() -> None:
    """What each printed, and its traceback, are for the tests of the page."""
    folder = Path(os.environ["MIXCLI_BLOCKS"])
    ends = {}
    for name, block in json.loads((folder / "blocks.json").read_text("utf-8")).items():
        out, error = io.StringIO(), ""
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(block, name, "exec"), {"__name__": "__main__"})
            except BaseException:
                error = traceback.format_exc()
        ends[name] = [out.getvalue(), error]
    (folder / "ends.json").write_text(json.dumps(ends), "utf-8")
