"""Test whether a built-in chat format renders the same text as a chat template.

Our formats need no child process and accept conversations that templates refuse, so they are preferred, but only where users could not
tell the difference. Conversations that the template refuses are passed over: there our format is the only one that answers.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256

from mixcli.errors import IntegrityError
from mixcli.llama.model import Vocab
from mixcli.prompts.answer_syntax import AnswerSyntax
from mixcli.prompts.jinja_process import TemplateProcess, TemplateRefusal
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, PromptOptions, Tool, ToolCall
from mixcli.prompts.template_variables import TemplateVariables

MAX_LITERALS, MAX_LITERAL = 64, 60  # strings of a template that contents are made of; characters of one
# one without an end goes to the end of the template: else each beginning would be looked at up to there
_CODE = re.compile(r"\{\{.*?(?:\}\}|\Z)|\{%.*?(?:%\}|\Z)", re.DOTALL)
_LITERAL = re.compile(r"'((?:[^'\\]|\\.|\\\Z)*+)(?:'|\Z)|\"((?:[^\"\\]|\\.|\\\Z)*+)(?:\"|\Z)", re.DOTALL)
S, U, A = "system", "user", "assistant"
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _turns(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role, content) for role, content in turns]


# What both must answer
_BASIC = (_turns((U, "Hi")), _turns((U, "Hi"), (A, "Hello."), (U, "Why?")))
_SHAPES = [_turns(*shape) for shape in (
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
)]  # fmt: skip

_SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
TOOLS = (Tool("get_weather", "The weather of a city.", _SCHEMA), Tool("stop", "Stop it."))


def _call(call_id: str, city: str) -> ToolCall:
    return ToolCall(call_id, TOOLS[0].name, f'{{"city": "{city}", "days": [1, 2]}}')


_PARIS = [
    Message(U, "Paris?"),
    Message(A, "", calls=(_call("a1b2c3d4e", "Paris"),)),
    Message("tool", "It rains.", call_id="a1b2c3d4e", name="get_weather"),
]
_BOTH = [
    Message(U, "Both?"),
    Message(A, "", calls=(_call("a1b2c3d4e", "Ulm"), _call("f1b2c3d4e", "Köln"))),
    Message("tool", "12 degrees", call_id="a1b2c3d4e", name="get_weather"),
    Message("tool", "8 °C", call_id="f1b2c3d4e", name="get_weather"),
]
# With tools; both must answer the first two
_WITH_TOOLS = (
    _PARIS,
    _turns((U, "Hi")),
    _turns((S, "Be kind."), (U, "Hi"), (A, "Hello."), (U, "Why?")),
    [*_PARIS, Message(A, "Rain."), Message(U, "Thanks.")],
    _BOTH,
    [Message(S, "Be kind."), *_BOTH, Message(A, "Cold."), *_PARIS],
)
# What a template may look for in a content
_CONTENTS = (
    "  a\n ", "\n\nb  ", "\tc\n", " ", "\n", "a\n\nb", "<think>\na\n</think>\n\nb", "a</think>b", "[THINK]a[/THINK]b", "<think>", "/no_think",
    "<tool_call>\n{}\n</tool_call>", "<tool_response>x</tool_response>", "[TOOL_CALLS][{}]", "</s>[INST] a [/INST]", "<s>", "<|im_end|>\n<|im_start|>system",
    "{\"a\": [1, 2]}", "<&>'\"\\", "{{ a }} {% b %} {# c #}", "12", "True", "none", "A: b | c", "é漢🏳️‍🌈", "word " * 2000,
)  # fmt: skip


class TemplateProbes:
    """What a chat template writes for conversations that look for differences to formats of our own."""

    def __init__(self, template: str, renderer: TemplateProcess, vocab: Vocab) -> None:
        self._template, self._renderer, self._vocab = template, renderer, vocab
        self._default_system: str | None = None

    def plain(self, layout: Layout) -> bool:
        """Return whether a layout writes the same without tools."""
        return self._same(layout, self._basic, must=True) and self._same(layout, self._rest, must=False)

    def with_tools(self, layout: Layout) -> bool:
        """Return whether a layout writes the same with tools."""
        return self._same(layout, self._tools[:2], must=True) and self._same(
            layout, self._tools[2:], must=False
        )

    @cached_property
    def knows_tools(self) -> bool:
        """Return whether the template has a place for tools, calls and results."""
        texts = [text for _, text in self._tools if isinstance(text, str)]
        return len(texts) >= 2 and all(TOOLS[0].name in text for text in texts)

    @cached_property
    def syntax(self) -> AnswerSyntax | None:
        """Return how the template writes calls; None where it knows no tools, or writes them in a way that is not known here."""
        text = self._tools[0][1]
        if not self.knows_tools or not isinstance(text, str):
            return None
        return AnswerSyntax.of_example(text, TOOLS[0].name, self._vocab, self._template)

    def default_system(self) -> str:
        """Return the system message that the template puts in as of now where a conversation has none; "" for none."""
        if self._default_system is None or "strftime_now" in self._template:
            mark, user = "\ue000", _BASIC[0]
            asked = [(user, NO_OPTIONS), ([Message(S, mark), *user], NO_OPTIONS)]
            bare, named = (text if isinstance(text, str) else "" for _, text in self._rendered(asked))
            before, _, after = named.partition(mark)
            found = after and bare.startswith(before) and bare[len(before) :].endswith(after)
            self._default_system = bare[len(before) : -len(after)] if found else ""
        return self._default_system

    @cached_property
    def efforts(self) -> tuple[str, ...]:
        """Return the values of reasoning_effort that make a difference to the template; its default comes first."""
        if "reasoning_effort" not in self._template:
            return ()
        asked = [None, *REASONING_EFFORTS]
        default, *texts = (
            text for _, text in self._rendered([(_BASIC[0], PromptOptions((), effort)) for effort in asked])
        )
        known = [
            (effort, text)
            for effort, text in zip(REASONING_EFFORTS, texts, strict=True)
            if isinstance(text, str)
        ]
        if len({text for _, text in known}) < 2:
            return ()
        return tuple(effort for effort, _ in sorted(known, key=lambda one: one[1] != default))

    @cached_property
    def _basic(self) -> "list[_Rendered]":
        return self._rendered([(probe, NO_OPTIONS) for probe in _BASIC])

    @cached_property
    def _rest(self) -> "list[_Rendered]":
        contents = _with_contents((*_CONTENTS, *literals(self._template)))
        return self._rendered([(probe, NO_OPTIONS) for probe in (*_SHAPES, *contents)])

    @cached_property
    def _tools(self) -> "list[_Rendered]":
        return self._rendered([(probe, PromptOptions(TOOLS)) for probe in _WITH_TOOLS])

    def _rendered(self, probes: "Sequence[tuple[Sequence[Message], PromptOptions]]") -> "list[_Rendered]":
        """Return the texts of conversations; a template that fails writes nothing: the first request reports it."""
        asked = [
            TemplateVariables.of(
                messages, [m.content for m in messages], prompt=messages[-1].role != A, options=options
            )
            for messages, options in probes
        ]
        try:
            texts = self._renderer.render(*asked)
        except IntegrityError as error:
            texts = [TemplateRefusal(str(error))] * len(asked)
        return list(zip(probes, texts, strict=True))

    def _same(self, layout: Layout, rendered: "Sequence[_Rendered]", *, must: bool) -> bool:
        """Compare; conversations that the template refuses are passed over, except those that it `must` answer."""
        for (messages, options), theirs in rendered:
            if isinstance(theirs, TemplateRefusal):
                if must:
                    return False
            elif not _same(layout, messages, options, theirs, self._vocab):
                return False
        return True


_Rendered = tuple[tuple[Sequence[Message], PromptOptions], str | TemplateRefusal]


def fingerprint(template: str) -> str:
    return sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _same(
    layout: Layout, messages: Sequence[Message], options: PromptOptions, theirs: str, vocab: Vocab
) -> bool:
    bos = vocab.text(vocab.bos) if vocab.bos >= 0 else ""
    if vocab.adds_bos and not theirs.startswith(bos):
        theirs = bos + theirs
    spellings = {
        spelled(layout, messages, vocab, options, written=written, empty=empty)
        for written in (False, True)
        for empty in (False, True)
    }
    if messages[-1].role == A:  # an answer to continue: what ends it is left out
        return any(theirs.startswith(ours) for ours in spellings)
    return theirs in spellings


def spelled(
    layout: Layout,
    messages: Sequence[Message],
    vocab: Vocab,
    options: PromptOptions = NO_OPTIONS,
    *,
    written: bool,
    empty: bool = False,
) -> str:
    """Return the parts of a layout as a template writes them.

    SentencePiece puts a space before each run. Between two runs a template must write it, after a token it may (`written`). It puts
    none before an empty run, where templates may write one (`empty`).
    """
    text, behind_run, started = "", False, False
    for part in layout(messages, options):
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


def _with_contents(contents: Iterable[str]) -> Iterator[list[Message]]:
    for text in contents:
        for content in (text, f"{text} x", f"x {text}"):
            yield _turns((U, content), (A, content), (U, content))
        yield _turns((S, text), (U, "Hi"), (A, f"{text}y"), (U, "Why?"), (A, f"x{text}y"), (U, f"x{text}"))
