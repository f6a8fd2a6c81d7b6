"""The modes of `mixcli run`: one answer, map-reduce over a long text, one answer per line."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mixcli.errors import MixcliError, SomeFailed, UsageError
from mixcli.host.protocol.messages import ChatBody, Fields
from mixcli.request.output_format import ABSTAIN, OutputFormat
from mixcli.request.prompt import PromptSpec
from mixcli.run.answer import Answer, ChatBackend, ask
from mixcli.system import stdin
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.text import shown

if TYPE_CHECKING:
    from mixcli.batch.batch import Backend

N_AT_ONCE = 32  # lines that are asked at a time
N_PARTS = 8  # parts of a long text that are asked at a time


class RunOptions(NamedTuple):
    """How the answer is asked for and shown; `body` is what every request has besides its messages and format."""

    form: OutputFormat
    body: ChatBody
    on_overflow: str
    show: bool
    as_json: bool
    stats: bool


class LoadedModel(ChatBackend, Protocol):
    """A backend that is held until `release`."""

    def release(self) -> None: ...


def answer_once(question: PromptSpec, text: str, held: Callable[[], LoadedModel], how: RunOptions) -> None:
    """Answer one question; the answer is shown while it comes."""
    with _holding(held()) as host:
        body = how.body._replace(messages=question.messages(text), form=how.form)
        if how.on_overflow == "drop-oldest":
            body = body._replace(options={**body.options, "on_overflow": how.on_overflow})
        _finish(host, body, how)


def answer_long(question: PromptSpec, text: str, held: Callable[[], LoadedModel], how: RunOptions) -> None:
    """Answer one question about a text of any length: parts first where it is longer than the context."""
    from mixcli.batch.backends import retry_while_busy
    from mixcli.run.map_reduce import MapReduce, Tokens

    if not text.strip():
        raise UsageError(
            "--on-overflow map-reduce needs text from a pipe or -f; pass some, and the task as PROMPT"
        )
    with _holding(held()) as host:
        client = host.client
        with console.progress("reading the text in parts") as bar:
            work = MapReduce(
                question,
                how.body,
                lambda body, key: retry_while_busy(client, body, key),
                Tokens(client),
                N_PARTS,
                bar.update,
            )
            messages, n_parts = work.last_messages(text)
        if n_parts:
            console.note(f"the text is longer than the context: combining the answers to {n_parts} parts")
        _finish(host, how.body._replace(messages=messages, form=how.form), how)


def answer_lines(
    question: PromptSpec, files: Sequence[Path], backend: Callable[[], "Backend"], how: RunOptions
) -> None:
    """Answer every line of stdin and of files separately, many at a time, and write one line for each in order.

    Empty lines have no answer. A line that cannot be read or answered gives an empty line and a sentence on stderr; SomeFailed at the end.
    Of several files, each line is named with its file.
    """
    from mixcli.batch.job import TemplateJob
    from mixcli.batch.output import json_line
    from mixcli.batch.records import Record, open_records
    from mixcli.batch.runner import BatchResult, BatchSettings, Tally, run

    job = TemplateJob(
        question.template,
        question.system,
        how.form,
        how.body.options,
        {**question.variables, "prompt": question.prompt},
    )
    with contextlib.ExitStack() as stack:
        sources = [("", stdin.stream())] if stdin.is_piped() else []
        sources += [(shown(path), stack.enter_context(stdin.opened(path))) for path in files]
        if not sources:
            raise UsageError("--each-line needs lines from a pipe or -f; pass one of them")

        def records() -> Iterator[Record]:
            for name, stream in sources:
                for record in open_records(stream, name, "lines").records:
                    place = f"{name}:{record.id}" if name and len(sources) > 1 else record.id
                    fields = {**record.fields, "stdin": record.fields.get("text", "")}
                    yield replace(record, id=place, fields=fields)

        asked = backend()
        stack.callback(asked.close)

        def look(done: BatchResult, _tally: Tally) -> None:
            if done.error is not None:
                console.error(f"line {done.record.id}: {done.error}")

        def write(line: Fields) -> None:
            console.write(json_line(line) if how.as_json else _one_line(line) + "\n")

        tally = run(records(), job, asked, None, BatchSettings("", N_AT_ONCE), write, look)
    if tally.n_failed:
        raise SomeFailed(f"{tally.n_failed:,} of {counted(tally.n_done, 'line')} without an answer")


@contextlib.contextmanager
def _holding(host: LoadedModel) -> Iterator[LoadedModel]:
    try:
        yield host
    finally:
        host.release()


def _finish(host: ChatBackend, body: ChatBody, how: RunOptions) -> None:
    """Ask the last, or only, question and show what was asked for. MixcliError where the call of a tool is cut off."""
    streamed = how.show and not how.form.abstain
    answer = ask(host, body, show=streamed)
    is_read = how.form.body() and not answer.calls
    read = how.form.read(answer.text, answer.finish_reason, answer.label_probs) if is_read else {}
    if answer.finish_reason == "length" and (_needs_call(body) or (answer.calls and not how.as_json)):
        called = answer.calls[-1].name if answer.calls else "a tool"
        raise MixcliError(
            f"the call of {called} was truncated at the token limit; raise --max-tokens or --ctx"
        )
    if how.as_json:
        console.data({**answer.to_json(), **read})
    elif answer.calls:
        _print_calls(answer)
    elif not streamed:
        console.line(_shown(answer, read, how.form))
    if how.stats:
        console.note(answer.statistics())


def _needs_call(body: ChatBody) -> bool:
    """Return whether a tool must be called, any or a certain one."""
    return body.options.get("tool_choice", "auto") != "auto"


def _print_calls(answer: Answer) -> None:
    """Print the calls of tools as JSON, one a line, and what the model said before them on stderr."""
    from mixcli.system import strict_json

    if answer.text.strip():
        console.note(answer.text.strip())
    for call in answer.calls:
        try:
            arguments = strict_json.loads(call.arguments or "{}")
        except ValueError:  # of a server that does not hold to JSON
            arguments = call.arguments
        line = {"name": call.name, "arguments": arguments, "id": call.id}
        console.line(json.dumps(line, ensure_ascii=False))


def _shown(answer: Answer, read: Fields, form: OutputFormat) -> str:
    if form.labels:
        return str(read["result"] or ABSTAIN)
    return answer.text.removesuffix("\n")


def _one_line(line: Fields) -> str:
    if "error" in line:
        return ""
    result = line["result"]
    if result is None:
        return ABSTAIN
    return " ".join((result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)).split())
