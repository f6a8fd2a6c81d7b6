"""A chat over ten turns: its history is never computed again, neither in the next turn nor after the host was stopped."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine import texts
from bench.engine.client import Streamed, stream
from bench.engine.scenario import Scenario
from bench.engine.servers import mixcli_host
from bench.engine.subject import Setting, placement
from bench.estimate import Numbers, Promise
from bench.turns import Side

N_TURNS, N_TOKENS = 10, 48
PLACEMENT = placement(4096, 4, flash_attn=False)


def sides(setting: Setting) -> Sequence[Side]:
    """Both sides are mixcli's: what a turn costs early and late, and what a resumed chat costs with and without its saved state."""
    home = setting.folder / "chat-home"

    def run() -> Numbers:
        shutil.rmtree(home, ignore_errors=True)
        talk = _Talk(setting)
        with mixcli_host(setting, PLACEMENT, home) as socket:
            seconds = [talk.turn(socket).seconds_first for _ in range(N_TURNS)]
        with mixcli_host(setting, PLACEMENT, home) as socket:
            talk.warm_up(socket)
            resumed = talk.ask(socket).seconds_first
        shutil.rmtree(home)
        with mixcli_host(setting, PLACEMENT, home) as socket:
            talk.warm_up(socket)
            computed = talk.ask(socket).seconds_first
        shutil.rmtree(home)
        return {
            "turn 2": seconds[1],
            "turn 10": seconds[-1],
            "resumed from disk": resumed,
            "computed again": computed,
        }

    return (Side("mixcli", run),)


class _Talk:
    """A conversation that grows."""

    def __init__(self, setting: Setting) -> None:
        self._options = {
            "max_tokens": N_TOKENS,
            "temperature": 0,
            "logit_bias": setting.subject.ends,
            "persist": True,
            "return_token_ids": True,
        }
        self._messages: list[dict[str, Any]] = []

    def ask(self, socket: Path) -> Streamed:
        """Ask the next question; the conversation stays as it is."""
        question = {"role": "user", "content": texts.turn(len(self._messages) // 2)}
        return stream(socket, {"messages": [*self._messages, question], **self._options})

    def turn(self, socket: Path) -> Streamed:
        """Ask the next question and keep it with its answer, whose token ids are kept, too."""
        answer = self.ask(socket)
        question = {"role": "user", "content": texts.turn(len(self._messages) // 2)}
        reply = {"role": "assistant", "content": answer.text, "token_ids": answer.last.get("token_ids")}
        self._messages += [question, reply]
        return answer

    def warm_up(self, socket: Path) -> None:
        """Let the model's pages and the threads be there before a clock starts, with a text from outside the chat."""
        body = {"messages": [{"role": "user", "content": texts.opening(0)}], "max_tokens": 4, "park": False}
        stream(socket, body)


SCENARIO = Scenario(
    "chat",
    "A chat over ten turns",
    sides,
    (
        Promise(
            "time to first token of turn 10, in terms of turn 2",
            ("mixcli", "turn 10"),
            ("mixcli", "turn 2"),
            "at most",
            1.3,
        ),
        Promise(
            "the same of a chat that is resumed from disk, in terms of computing it again",
            ("mixcli", "resumed from disk"),
            ("mixcli", "computed again"),
            "at most",
            0.3,
        ),
    ),
)
