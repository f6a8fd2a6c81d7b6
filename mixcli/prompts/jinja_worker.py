"""The child process of jinja.py: render a Jinja chat template, one JSON line in, one out.

Run as a script and isolated, so it imports nothing of mixcli. The environment is the one that transformers gives to chat templates
(transformers/utils/chat_template_utils.py). The operating system limits memory, file size, and core dumps. It limits processor time too: a machine that is
overloaded, or a process that was stopped, is not the template's fault. The limit by the clock is the parent's.
"""

import json
import os
import queue
import resource
import sys
import threading
import time
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mixcli.system import child_limits
from mixcli.system.python_words import plain

MEMORY_LIMIT = 1 << 29  # bytes of address space
MAX_TEXT = 1 << 24  # characters


class Refused(Exception):
    """The template called raise_exception."""


class GenerationTag(Extension):
    """{% generation %}: marks for training what the assistant says; for a prompt its body stands as it is."""

    tags = {"generation"}  # noqa: RUF012  so jinja2 has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


def limit_resources() -> None:
    child_limits.limit(resource.RLIMIT_AS, MEMORY_LIMIT)
    child_limits.limit(resource.RLIMIT_FSIZE, 0)
    child_limits.no_core_dump()


def limit_time(seconds: int) -> None:
    """Let the system end what takes more processor time, also what computes inside one operation and sees no end of the parent."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time()) + 1 + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
    )


def refuse(message: str) -> NoReturn:
    raise Refused(str(message))


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return the tojson filter as chat templates expect it: not escaped for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment() -> Environment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    made.filters["tojson"] = to_json
    return made


def _answer(render: Any, variables: dict[str, Any]) -> dict[str, str]:
    """Return the text, or what went wrong by its kind: refused by the template, or an error in it."""
    try:
        text = render(**{"tools": None, "documents": None, **variables})
    except Refused as error:
        return {"refused": str(error)[:500]}
    except TemplateSyntaxError as error:
        return {"error": fault(error), "part": "syntax"}  # no conversation escapes it
    except Exception as error:  # whatever else a template makes Python raise is the template's fault
        return {"error": fault(error)}
    return (
        {"text": text} if len(text) <= MAX_TEXT else {"error": f"it writes more than {MAX_TEXT:,} characters"}
    )


def fault(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it uses too much memory"
    if isinstance(error, RecursionError):
        return "it recurses endlessly"
    line = getattr(error, "lineno", None)
    said = f"it has no {error}" if isinstance(error, KeyError) else plain(str(error)) or type(error).__name__
    return said[:500] + (f" (line {line})" if line else "")


def main() -> None:
    """Answer line by line; end at once with the parent, whose end closes our stdin."""
    limit_resources()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    setup = json.loads(lines.get())
    render: Any = None

    def compiled(**variables: Any) -> str:
        nonlocal render
        if render is None:
            render = environment().from_string(setup["template"]).render
        return str(render(**setup["tokens"], **variables))

    while True:
        line = lines.get()
        limit_time(setup["cpu_limit"])
        answers = [_answer(compiled, variables) for variables in json.loads(line)]
        sys.stdout.write(json.dumps(answers) + "\n")
        sys.stdout.flush()


def _read(lines: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
