"""Keep llama.cpp's log in memory, to explain a failed load."""

import re
from collections import deque

# ggml_log_level of ggml.h
LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR, LEVEL_CONTINUED = 1, 2, 3, 4, 5

_WHERE = re.compile(r"^((\w+(::\w+)*|error loading model( \w+)?): )+")


class Log:
    """The last lines of llama.cpp's log, which never reaches the terminal."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=400)
        self._continued = False  # whether a continuation belongs to the last kept line

    def __call__(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == LEVEL_DEBUG:  # a line per tensor, which would push everything else out
            self._continued = False
        elif level == LEVEL_CONTINUED and not self._continued:
            pass
        elif level == LEVEL_CONTINUED and self._lines:
            last_level, last = self._lines.pop()
            self._lines.append((last_level, last + line))
        else:
            self._continued = True
            self._lines.append((level, line))

    def clear(self) -> None:
        self._lines.clear()

    def lines(self, least_level: int = LEVEL_INFO) -> list[str]:
        """Return the kept lines, oldest first, of at least this level (2 all, 3 warnings, 4 errors)."""
        return [line.strip() for level, line in self._lines if level >= least_level and line.strip()]

    def why(self) -> str:
        """Return the first error since `clear`, the root of those that follow, without llama.cpp's function names; or ""."""
        said = self.lines(LEVEL_ERROR) or self.lines(LEVEL_WARN)[-1:]
        return _WHERE.sub("", said[0].splitlines()[0]).rstrip(".:") if said else ""
