"""llama.cpp's log: kept, not shown, so that a failed load can say why."""

import re
from collections import deque

# ggml_log_level
LEVEL_WARN, LEVEL_ERROR, LEVEL_CONTINUED = 2, 3, 5

_WHERE = re.compile(r"^((\w+(::\w+)*|error loading model( \w+)?): )+")


class Log:
    """The last lines of llama.cpp's log, which never reaches the terminal."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=400)

    def __call__(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == LEVEL_CONTINUED and self._lines:
            last_level, last = self._lines.pop()
            self._lines.append((last_level, last + line))
        else:
            self._lines.append((level, line))

    def clear(self) -> None:
        self._lines.clear()

    def lines(self, least_level: int = 0) -> list[str]:
        """Give the kept lines, oldest first, of at least this level (0 all, 2 warnings, 3 errors)."""
        return [line.strip() for level, line in self._lines if level >= least_level and line.strip()]

    def why(self) -> str:
        """Give the first error since `clear`, the root of those that follow, without llama.cpp's function names; or ""."""
        said = self.lines(LEVEL_ERROR) or self.lines(LEVEL_WARN)[-1:]
        return _WHERE.sub("", said[0]).rstrip(".") if said else ""
