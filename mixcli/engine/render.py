"""The child process of templates.py: renders one Jinja chat template again and again, one JSON line in, one out.

Run as a script and isolated, so it imports nothing of mixcli. Limits that the operating system keeps: memory, file size, no new
processes' core dumps. The time limit is the parent's.
"""

import json
import sys
from datetime import datetime
from typing import Any, NoReturn

MEMORY_LIMIT = 1 << 29  # bytes of address space
MAX_TEXT = 1 << 24  # characters


class Refused(Exception):
    """The template called raise_exception."""


def limit_resources() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def refuse(message: str) -> NoReturn:
    raise Refused(str(message))


def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """The tojson filter as chat templates expect it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def main() -> None:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    limit_resources()
    setup = json.loads(sys.stdin.readline())
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    environment.filters["tojson"] = to_json
    for line in sys.stdin:
        answer: dict[str, str]
        try:
            template = environment.from_string(setup["template"])
            text = template.render(
                bos_token=setup["bos_token"],
                eos_token=setup["eos_token"],
                tools=None,
                documents=None,
                **json.loads(line),
            )
            answer = (
                {"text": text}
                if len(text) <= MAX_TEXT
                else {"error": f"it writes more than {MAX_TEXT:,} characters"}
            )
        except Refused as error:
            answer = {"refused": str(error)[:500]}
        except (
            TemplateError,
            MemoryError,
            RecursionError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        except (
            Exception
        ) as error:  # whatever else a template makes Python raise is the template's fault as well
            answer = {"error": f"{type(error).__name__}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
