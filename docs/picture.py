"""Draw docs/session.svg: a real session, typed into a real shell in a pseudo-terminal, as rich draws terminals.

Run by `make picture`; it needs the demo model in the store.
"""

import io
import os
import sys
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

HERE = Path(__file__).resolve().parent
PROMPT = "$ "
COMMANDS = (
    "mixcli list",
    'echo "What is the capital of France?" | mixcli run -m demo',
    'mixcli run -m demo "Name three rivers." --max-tokens 40 --stats',
    "mixcli ps",
)
CHAT = ("What is the capital of France?", "/quit")
WIDTH, HEIGHT = 100, 60


def main() -> None:
    """Type every command, keep what the terminal shows, and write the picture."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = pexpect.spawn(
        "/bin/sh",
        encoding="utf-8",
        dimensions=(HEIGHT, WIDTH),
        timeout=120,
        env={**os.environ, "PS1": PROMPT, "PATH": path, "TERM": "xterm-256color"},
    )
    shell.expect_exact(PROMPT)
    shown = io.StringIO()
    shell.logfile_read = shown
    shown.write(PROMPT)
    for command in COMMANDS:
        shell.sendline(command)
        shell.expect_exact(f"\n{PROMPT}")
    shell.sendline("mixcli chat -m demo -t 0")
    for line in CHAT:
        shell.expect_exact(">>> ")
        shell.sendline(line)
    shell.expect_exact(f"\n{PROMPT}")
    screen = pyte.Screen(WIDTH, HEIGHT)
    pyte.Stream(screen).feed(shown.getvalue())
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in _lines(screen):
        console.print(line)
    (HERE / "session.svg").write_text(console.export_svg(title="mixcli"), "utf-8")


def _lines(screen: pyte.Screen) -> list[Text]:
    """Give what stands on the screen, with its colours, without the empty rows at its end and the last prompt."""
    lines = []
    for row in range(screen.cursor.y):
        line = Text()
        for column in range(WIDTH):
            cell = screen.buffer[row][column]
            color = None if cell.fg == "default" else cell.fg.replace("brown", "yellow")
            line.append(cell.data, Style(color=color, bold=cell.bold))
        line.rstrip()
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
