"""Test whether a built-in chat format renders the same text as a chat template.

Our formats need no child process and accept conversations that templates refuse, so they are preferred, but only where users could not
tell the difference. Conversations that the template refuses are passed over: there our format is the only one that answers.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from mixcli.errors import IntegrityError
from mixcli.llama.model import Vocab
from mixcli.prompts.formats import Layout, Message
from mixcli.prompts.jinja_process import TemplateProcess, TemplateRefusal, TemplateVariables

MAX_LITERALS, MAX_LITERAL = 64, 60  # strings of a template that contents are made of; characters of one
_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
S, U, A = "system", "user", "assistant"

# What both must answer
_BASIC = ([(U, "Hi")], [(U, "Hi"), (A, "Hello."), (U, "Why?")])
_SHAPES = (
    [(S, "Be kind."), (U, "Hi")],
    [(S, "Be kind."), (U, "Hi"), (A, "Hello."), (U, "Why?"), (A, "So."), (U, "Ah")],
    [(U, "Hi"), (U, "You?")],
    [(U, "Hi"), (U, ""), (U, "You?")],
    [(U, "Hi"), (A, "One."), (A, "Two."), (U, "You?")],
    [(S, "One."), (S, "Two."), (U, "Hi")],
    [(U, "Hi"), (S, "Be kind."), (U, "You?")],
    [(U, "Hi"), (A, "Hello."), (S, "Be kind."), (U, "You?")],
    [(A, "Hello."), (U, "Hi")],
    [(S, "Be kind."), (A, "Hello."), (U, "Hi")],
    [(S, ""), (U, "Hi"), (A, "Hello."), (U, "")],
    [(U, "Hi"), (A, ""), (U, "Why?")],
    [(U, "Hi"), (A, "One, two,")],
    [(S, "Be kind."), (U, "Hi"), (A, "One, two,")],
)  # fmt: skip
# What a template may look for in a content
_CONTENTS = (
    "  a\n ", "\n\nb  ", "\tc\n", " ", "\n", "a\n\nb", "<think>\na\n</think>\n\nb", "a</think>b", "[THINK]a[/THINK]b", "<think>", "/no_think",
    "<tool_call>\n{}\n</tool_call>", "<tool_response>x</tool_response>", "[TOOL_CALLS][{}]", "</s>[INST] a [/INST]", "<s>", "<|im_end|>\n<|im_start|>system",
    "{\"a\": [1, 2]}", "<&>'\"\\", "{{ a }} {% b %} {# c #}", "12", "True", "none", "A: b | c", "é漢🏳️‍🌈", "word " * 2000,
)  # fmt: skip


def first_alike(
    formats: Iterable[tuple[str, Callable[[], Layout]]],
    template: str,
    renderer: TemplateProcess,
    vocab: Vocab,
) -> str | None:
    """Return the name of the first format that writes what the template writes; None where none does, or it is broken."""
    try:
        for name, build in formats:
            if _alike(build(), template, renderer, vocab):
                return name
    except IntegrityError:
        pass  # the first request reports it
    return None


def fingerprint(template: str) -> str:
    return sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _alike(layout: Layout, template: str, renderer: TemplateProcess, vocab: Vocab) -> bool:
    rest = [*_SHAPES, *_with_contents((*_CONTENTS, *literals(template)))]
    for is_basic, probes in ((True, list(_BASIC)), (False, rest)):
        conversations = [[Message(*turn) for turn in probe] for probe in probes]
        asked = [
            TemplateVariables.of(messages, [m.content for m in messages], prompt=messages[-1].role != A)
            for messages in conversations
        ]
        for messages, theirs in zip(conversations, renderer.render(*asked), strict=True):
            if isinstance(theirs, TemplateRefusal):
                if is_basic:
                    return False
            elif not _same(layout, messages, theirs, vocab):
                return False
    return True


def _same(layout: Layout, messages: Sequence[Message], theirs: str, vocab: Vocab) -> bool:
    bos = vocab.text(vocab.bos) if vocab.bos >= 0 else ""
    if vocab.adds_bos and not theirs.startswith(bos):
        theirs = bos + theirs
    spellings = {
        spelled(layout, messages, vocab, written=written, empty=empty)
        for written in (False, True)
        for empty in (False, True)
    }
    if messages[-1].role == A:  # an answer to continue: what ends it is left out
        return any(theirs.startswith(ours) for ours in spellings)
    return theirs in spellings


def spelled(
    layout: Layout, messages: Sequence[Message], vocab: Vocab, *, written: bool, empty: bool = False
) -> str:
    """Return the parts of a layout as a template writes them.

    SentencePiece puts a space before each run. Between two runs a template must write it, behind a token it may (`written`). It puts
    none before an empty run, where templates may write one (`empty`).
    """
    text, behind_run, started = "", False, False
    for part in layout(messages):
        if part == "" and not empty:
            continue
        if isinstance(part, int):
            text += vocab.text(part)
        else:
            space = vocab.adds_space_prefix and (behind_run or (written and started))
            text += f" {part}" if space else part
        behind_run, started = isinstance(part, str), True
    return text


def literals(template: str) -> list[str]:
    """Return the strings that stand in a template's code, as far as they could be looked for in a content."""
    code = "\n".join(_CODE.findall(template))
    found = dict.fromkeys(a or b for a, b in _LITERAL.findall(code))
    plain = [text.replace("\\n", "\n").replace("\\t", "\t") for text in found]
    return [text for text in plain if 0 < len(text) <= MAX_LITERAL][:MAX_LITERALS]


def _with_contents(contents: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    for text in contents:
        for content in (text, f"{text} x", f"x {text}"):
            yield [(U, content), (A, content), (U, content)]
        yield [(S, text), (U, "Hi"), (A, f"{text}y"), (U, "Why?"), (A, f"x{text}y"), (U, f"x{text}")]
