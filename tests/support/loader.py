"""llama.cpp in a process of its own that loads one file after the other: for files that may end it."""

import subprocess
import sys
from pathlib import Path

_CODE = """
import sys
from pathlib import Path
from mixcli.llama.batch import Batch; from mixcli.llama.model import Model; from mixcli.llama.context import Context
from profiles.placement import Placement
for line in sys.stdin:
    try:
        placement = Placement(n_ctx=64, n_threads=1, n_threads_batch=1)
        with Model.load(Path(line.rstrip("\\n")), placement) as model:
            context, batch = Context(model, placement), Batch(64)
            batch.extend(model.vocab.tokenize("ab \\u00e9")[:32] or [0], 0, 0, True)
            context.decode(batch)
            context.logits()
            del context
        print("works", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "), flush=True)
"""


class Loader:
    """A process that loads files and computes with them; a new one follows where it died."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def load(self, path: Path) -> str:
        """Load a file and compute with it; return "works", what llama.cpp complained about, or "died" where the process did not survive."""
        if self._child is None:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(
                [sys.executable, "-c", _CODE], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{path}\n")
        child.stdin.flush()
        answer = child.stdout.readline().strip()
        if not answer:
            child.wait(30)
            self.close()
        return answer or "died"

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
