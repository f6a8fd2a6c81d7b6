"""Which tools have schemas that are too complex to be enforced. To find out takes up to a second for each, and each of the `n` answers of a request needs it."""

from collections import OrderedDict

from mixcli.engine.answer_grammar import named, schema_of
from mixcli.engine.engine import Engine
from mixcli.engine.json_schema import Unenforceable
from mixcli.errors import BadRequest
from mixcli.prompts.messages import ToolUse

MAX_KNOWN = 32  # sets of tools


class LooseTools:
    """The names of the tools whose arguments are free, of the last sets of tools; used in several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[ToolUse, frozenset[str]] = OrderedDict()

    def known(self, use: ToolUse) -> frozenset[str]:
        """Return what `found` has found; none for a set that it was not asked for."""
        return self._known.get(use, frozenset()) if use.tools else frozenset()

    def found(self, use: ToolUse, engine: Engine) -> frozenset[str] | None:
        """Return the tools whose schemas are too complex, or all that are not strict where only their sum is; None where all are strict.

        Raises BadRequest for a schema that is invalid, or too complex and of a strict tool.
        """
        free = _too_complex(use, engine)
        loose = frozenset(tool.name for tool in use.callable if not tool.strict)
        if not loose:
            return None
        self._known[use] = free or loose
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return free or loose


def _too_complex(use: ToolUse, engine: Engine) -> frozenset[str]:
    found = set()
    for tool in use.callable:
        schema = schema_of(use, tool)
        try:
            engine.compile(schema, at_start=False)
        except Unenforceable as error:
            if tool.strict:
                raise named(error, tool) from None
            found.add(tool.name)
        except BadRequest as error:
            raise named(error, tool) from None
    return frozenset(found)
