"""Chat templates of the models that have no format of their own here: Jinja, run in a child process with limits.

A template comes with a downloaded file and is a program. It runs in jinja2's immutable sandbox, and that in a process of its own
(render.py) with little memory and little time: a loop, a bomb or a way out of the sandbox costs that process only. It never sees
what people wrote: each content is a placeholder, put back as plain text afterwards, so no content can become a control token.
"""

import json
import re
import secrets
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixcli.engine.content import ContentTokenizer
from mixcli.engine.formats import Message, Part
from mixcli.engine.llama import Vocab
from mixcli.errors import BadRequest, IntegrityError

MAX_TEMPLATE = 1 << 18  # characters; the longest template known has about 30,000
TIME_LIMIT = 5.0  # seconds; a sane template takes some milliseconds


class TemplateRefusal(Exception):
    """The template called raise_exception: this conversation does not suit it."""


class JinjaLayout:
    """Messages to parts, as the model's own template says."""

    def __init__(self, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> None:
        if len(template) > MAX_TEMPLATE:
            raise IntegrityError(
                f"the model's chat template has {len(template):,} characters; {MAX_TEMPLATE:,} is the limit"
            )
        self._tokenizer, self._vocab = tokenizer, vocab
        self._renderer = Renderer(
            template,
            bos_token=vocab.text(vocab.bos) if vocab.bos >= 0 else "",
            eos_token=vocab.text(vocab.eos) if vocab.eos >= 0 else "",
        )

    def __call__(self, messages: Sequence[Message]) -> list[Part]:
        try:
            parts = self._parts(messages)
        except TemplateRefusal as refusal:
            if messages[0].role != "system":
                raise BadRequest(f"the model's chat template says: {refusal}", param="messages") from None
            parts = None
        if parts is None:  # refused or dropped: some templates know no system messages
            try:
                parts = self._parts(_system_to_user(messages))
            except TemplateRefusal as refusal:
                raise BadRequest(f"the model's chat template says: {refusal}", param="messages") from None
        if parts is None:
            raise BadRequest(
                "the model's chat template leaves out a message of this conversation", param="messages"
            )
        if self._vocab.adds_bos and parts[:1] != [self._vocab.bos]:
            parts.insert(0, self._vocab.bos)
        return parts

    def _parts(self, messages: Sequence[Message]) -> list[Part] | None:
        """Render and take apart; None where the content of a message does not appear."""
        nonce = f"{secrets.randbits(64):020d}"
        marks = {f"\ue000{nonce}{i:06d}\ue001": message.content.strip() for i, message in enumerate(messages)}
        shown = [
            {"role": message.role, "content": _around(message.content, mark)}
            for message, mark in zip(messages, marks, strict=True)
        ]
        continues = messages[-1].role == "assistant"
        text = self._renderer.render(shown, add_generation_prompt=not continues)
        pieces = re.split(f"(\ue000{nonce}\\d{{6}}\ue001)", text)
        if any(content and mark not in pieces for mark, content in marks.items()):
            return None
        if continues and messages[-1].content.strip():
            last = len(pieces) - 1 - pieces[::-1].index(list(marks)[-1])
            pieces = pieces[: last + 1]
        return list(self._merged(pieces, marks))

    def _merged(self, pieces: Sequence[str], marks: dict[str, str]) -> Iterator[Part]:
        """Join text and content that touch: the tokenizer merges across that border, as it did in training."""
        run = ""
        for piece in pieces:
            for part in [marks[piece]] if piece in marks else self._tokenizer.split_literal(piece):
                if isinstance(part, str):
                    run += part
                    continue
                if run:
                    yield run
                yield part
                run = ""
        if run:
            yield run


class Renderer:
    """The child process that renders one template; started at the first use, killed when it takes too long."""

    def __init__(self, template: str, *, bos_token: str, eos_token: str) -> None:
        self._setup = json.dumps({"template": template, "bos_token": bos_token, "eos_token": eos_token})
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def render(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """Raise TemplateRefusal when the template refuses the messages, IntegrityError when it is broken or does not end."""
        with self._lock:  # one question at a time, whatever thread asks
            return self._render(messages, add_generation_prompt=add_generation_prompt)

    def _render(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._start()
        assert process.stdin and process.stdout
        timer = threading.Timer(TIME_LIMIT, process.kill)
        timer.start()
        try:
            request = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            process.kill()
            raise IntegrityError(
                f"the model's chat template did not end within {TIME_LIMIT:.0f} s or took too much memory; "
                "it is broken or hostile"
            )
        answer = json.loads(line)
        if "refused" in answer:
            raise TemplateRefusal(answer["refused"])
        if "error" in answer:
            raise IntegrityError(f"the model's chat template is broken: {answer['error']}")
        text = answer["text"]
        assert isinstance(text, str)
        return text

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("render.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
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
            pipe.close()


def _around(content: str, mark: str) -> str:
    """Put the mark in the place of the text between a content's outer white space, which templates like to strip."""
    inner = content.strip()
    if not inner:
        return content
    head, tail = content.split(inner, 1) if inner else ("", "")
    return head + mark + tail


def _system_to_user(messages: Sequence[Message]) -> list[Message]:
    """Move a leading system text into the first user message, for templates that know no system role."""
    system, *rest = messages
    if system.role != "system" or not rest or rest[0].role != "user":
        return list(messages)
    return [Message("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]
