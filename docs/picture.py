"""Draw the pictures of README.md and docs/: real commands in a real pseudo-terminal, as rich draws terminals.

Run by `make picture`; it needs the demo model in the store.
"""

import os
import tempfile
from pathlib import Path

from rich.text import Text

from docs.terminal import PROMPT, Terminal, pane, save

HERE = Path(__file__).resolve().parent
CHAT = "mixcli chat -m demo --temperature 0 --keep-alive 0"
MESSAGES = (
    "Explain photosynthesis in a few sentences.",
    "What is the capital of France?",
    "/stats",
    "/context",
)
CHAT_ROWS = 60  # so that nothing scrolls: a prompt is found by its row
PLAN = "mixcli plan mixtral --quant Q4_K_M --profile rtx-4090"
TYPES = "mixcli plan mixtral --profile rtx-4090"


def planned(command: str, width: int) -> list[Text]:
    """Return a plan with its command line, as a terminal shows them."""
    terminal = Terminal(60, width)
    terminal.enter(command, PROMPT)
    return terminal.rows()[:-1]  # without the next prompt


def chatted(messages: tuple[str, ...], width: int) -> list[Text]:
    """Return the screen of a chat in a home of its own, with the models of the user's store."""
    with tempfile.TemporaryDirectory() as home:
        models = Path(os.environ.get("MIXCLI_HOME", Path.home() / ".local" / "share" / "mixcli"))
        store = models / "data" / "models" if "MIXCLI_HOME" in os.environ else models / "models"
        (Path(home) / "data").mkdir()
        (Path(home) / "data" / "models").symlink_to(store)
        terminal = Terminal(CHAT_ROWS, width, MIXCLI_HOME=home, MIXCLI_MEASURE="off")  # no notes of it
        terminal.enter(CHAT, ">>>")
        for line in messages:
            terminal.enter(line, ">>>")
        *found, status = terminal.rows()
        while not found[-1].plain:
            found.pop()
        terminal.enter("/quit", PROMPT)
        return [*found, Text(), status]


def draw() -> None:
    """Draw all pictures."""
    left = planned(PLAN, 98)
    right = chatted(MESSAGES[:2], 54)
    height = max(len(left), len(right))
    save(
        HERE / "first.svg",
        "Left: the plan of Mixtral 8x7B on a 24 GB card. Right: a chat with the demo model.",
        pane(
            [*left, *[Text()] * (height - len(left))],
            98,
            "Mixtral 8x7B on a 24 GB card, planned before it is loaded",
            "plan",
        ),
        pane([*right, *[Text()] * (height - len(right))], 54, "the demo model on two CPU cores", "chat"),
    )
    save(
        HERE / "plan.svg",
        "Every quantization type of Mixtral 8x7B on a 24 GB card: size, where it lies, rates, loss, and the one that is chosen.",
        pane(planned(TYPES, 150), 150, "mixcli plan", "types"),
    )
    save(
        HERE / "chat.svg",
        "A chat with the demo model.",
        pane(chatted(MESSAGES, 100), 100, "mixcli chat", "chat"),
    )


if __name__ == "__main__":
    draw()
