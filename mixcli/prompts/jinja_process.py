"""Start, limit and stop the child process that renders a chat template."""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mixcli.errors import Busy, IntegrityError
from mixcli.prompts.template_variables import TemplateVariables

CPU_LIMIT = (
    5  # seconds of processor time for one request, whole ones; a sane template takes some milliseconds
)
TIME_LIMIT = 30.0  # seconds by the clock: where that passes first, the machine is overloaded, and the template is not at fault
_KEPT = ("LANG", "LC_ALL", "TZ", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # no token of the user
ADVICE = "it is the key tokenizer.chat_template of the GGUF file; use another file of this model"


class TemplateRefusal(Exception):
    """The template called raise_exception: this conversation does not suit it."""


class BrokenTemplate(IntegrityError):
    """The template ended with an error; `is_certain` where no conversation escapes it."""

    def __init__(self, message: str, *, is_certain: bool = False) -> None:
        super().__init__(message)
        self.is_certain = is_certain


class TemplateProcess:
    """Renders one template; safe to use from several threads."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        """`tokens` are bos_token, eos_token and others that the template may name."""
        self._setup = json.dumps({"template": template, "tokens": dict(tokens), "cpu_limit": CPU_LIMIT})
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def render(self, *conversations: TemplateVariables) -> list[str | TemplateRefusal]:
        """Return a text for each, or the template's refusal; raise IntegrityError when it is broken or does not end, Busy when the machine is too slow."""
        with self._lock:
            answers = self._ask(conversations)
        found: list[str | TemplateRefusal] = []
        for answer in answers:
            if "error" in answer:
                why = f"the model's chat template is broken: {answer['error']}; {ADVICE}"
                raise BrokenTemplate(why, is_certain=answer.get("part") == "syntax")
            found.append(TemplateRefusal(answer["refused"]) if "refused" in answer else answer["text"])
        return found

    def _ask(self, conversations: Sequence[TemplateVariables]) -> list[dict[str, str]]:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._start()
        assert process.stdin and process.stdout
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(TIME_LIMIT, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(conversations) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            _stop(process)  # waited for, so that the next request starts another
            if is_late.is_set():
                raise Busy(
                    f"the chat template was not rendered within {TIME_LIMIT:.0f} s: the machine is overloaded; retry"
                )
            raise IntegrityError(
                f"the model's chat template took more than {CPU_LIMIT} s of processor time or too much memory: "
                f"it is broken or malicious; {ADVICE}"
            )
        answers: list[dict[str, str]] = json.loads(line)
        return answers

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("jinja_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            text=True,
            encoding="utf-8",
        )
        assert process.stdin
        process.stdin.write(self._setup + "\n")
        weakref.finalize(self, _stop, process)
        return process


def _stop(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):  # what it did not read any more
                pipe.close()
