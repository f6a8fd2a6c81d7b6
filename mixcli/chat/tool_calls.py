"""Tools in a chat: a call is shown, the person is asked, the tool runs, and its result is shown folded."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mixcli.chat.terminal_modes import other_program, typed_ahead
from mixcli.chat.view.calls import folded, shown_call
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.tools.toolbox import MAX_RESULT

if TYPE_CHECKING:
    from mixcli.request.prompt import FunctionCall
    from mixcli.tools.toolbox import Toolbox

MAX_ROUNDS = 16  # answers that call tools after one message
CHARACTERS = 4  # of a token, on average
SLOW = 2.0  # seconds until a note says how a tool is stopped
DECLINED = "The user did not allow this call."
CANCELLED = "The user stopped this call."

YES, NO, ALWAYS = "yes", "no", "always"
ANSWERS = {"y": YES, "yes": YES, "n": NO, "no": NO, "": NO, "a": ALWAYS, "always": ALWAYS}


@dataclass
class ToolRunner:
    """The tools of a chat; with `asks` a person is asked before each call, `always` are those that need no question any more."""

    toolbox: "Toolbox"
    asks: bool = True
    always: set[str] = field(default_factory=set)
    typed: str = ""  # before a question, which is meant for the next prompt

    @staticmethod
    def check(*, yes: bool) -> None:
        """Raise UsageError where a person should be asked and cannot be."""
        if not yes and not console.can_ask():
            raise UsageError(
                "--tools asks before each call, and stdin or stderr is not a terminal; pass --yes to run every call"
            )

    def run(self, call: "FunctionCall", n_ctx: int) -> str:
        """Return the text that the model gets for a call, about half of `n_ctx` tokens at most; KeyboardInterrupt where the person stops it."""
        if not self._allows(call):
            console.note("(not run)")
            return DECLINED
        with console.if_slow(f"(running {call.name}; Ctrl-C stops it)", SLOW):
            result = self.toolbox.call(call, n_ctx * CHARACTERS // 2 or MAX_RESULT)
        console.note(folded(result.text))
        return result.text

    def _allows(self, call: "FunctionCall") -> bool:
        if not self.asks or call.name in self.always or not self.toolbox.source_of(call.name):
            console.note(shown_call(call))
            return True
        self.typed += typed_ahead()
        with other_program():
            question = f"{shown_call(call)}\nRun it? [y/N/a: always {call.name}] "
            answer = console.choose(question, ANSWERS, at_end=NO)
        if answer == ALWAYS:
            self.always.add(call.name)
        return answer != NO

    def rows(self) -> list[tuple[str, str]]:
        """Return the name of each tool, and what it does and where it comes from."""
        specs = self.toolbox.specs
        firsts = [spec.description.strip().partition("\n")[0] for spec in specs]
        sources = [self.toolbox.source_of(spec.name) for spec in specs]
        return [
            (spec.name, f"{first} ({source})".strip())
            for spec, first, source in zip(specs, firsts, sources, strict=True)
        ]


__all__ = ["CANCELLED", "MAX_ROUNDS", "ToolRunner"]
