"""Jinja chat templates of models without a built-in format, rendered in a limited child process.

A template comes with a downloaded file and is a program. It runs in jinja2's immutable sandbox, and that in a process of its own (jinja_worker.py) with little memory and little time: a loop, a bomb or a way out of the sandbox costs that process only.

What people write never becomes a control token, and still the text is the one that the template gives for it (as transformers
renders it). Each conversation is rendered as it is, and with placeholders for the contents. Where both agree, the contents are put in
as plain text. Where the template looked into a content (`split('</think>')`, `tojson`), sentinels around each special text in it
show afterwards which special texts are the template's (template_provenance.py).
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from threading import RLock

from mixcli.errors import BadRequest, IntegrityError
from mixcli.llama.model import Vocab
from mixcli.prompts.answer_syntax import AnswerSyntax
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.format_check import TemplateProbes
from mixcli.prompts.jinja_process import BrokenTemplate, TemplateProcess, TemplateRefusal
from mixcli.prompts.messages import NO_OPTIONS, Message, Part, PromptOptions
from mixcli.prompts.template_provenance import BRACKET, Provenance
from mixcli.prompts.template_variables import TemplateVariables, texts_of
from mixcli.prompts.tool_json import nine
from mixcli.prompts.tool_text import as_text

MAX_TEMPLATE = 1 << 18  # characters; the longest template known has about 30,000
MAX_REAL = 1 << 22  # characters of contents; longer ones are not shown to the template


@dataclass(frozen=True)
class Content:
    """What stands for a message in a rendered text: its own text between white space, and its own tokens where they are known."""

    text: str
    tokens: tuple[int, ...] = ()


Piece = str | Content  # the template's own text, which may spell special tokens, or a message's


class JinjaLayout:
    """Messages to parts, as the model's own template says."""

    def __init__(self, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> None:
        if len(template) > MAX_TEMPLATE:
            raise IntegrityError(
                f"the model's chat template is {len(template):,} characters long; the limit is {MAX_TEMPLATE:,}"
            )
        self._tokenizer, self._vocab = tokenizer, vocab
        self._template = template
        self.renderer = TemplateProcess(template, _tokens(vocab))
        self.probes = TemplateProbes(template, self.renderer, vocab)
        self._lock = RLock()

    def __call__(self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> list[Part]:
        messages = _clean(messages)
        with self._lock:
            if self.probes.syntax is None:
                messages = as_text(messages, options.tools, results_from="user")
                options = replace(options, tools=())
            try:
                return self._of(messages, options)
            except BadRequest:
                if (shorter := _with_short_ids(messages)) == messages:
                    raise
                return self._of(shorter, options)

    @property
    def syntax(self) -> AnswerSyntax:
        """Return how the model writes calls: as the template does, or between tags where the template has no place for tools."""
        return self.probes.syntax or AnswerSyntax.of("tags", self._vocab, self._template)

    def _of(self, messages: Sequence[Message], options: PromptOptions) -> list[Part]:
        try:
            parts = self._parts(messages, options)
        except TemplateRefusal as refusal:
            if messages[0].role != "system":
                raise BadRequest(
                    f"the model's chat template refused the conversation: {refusal}", param="messages"
                ) from None
            parts = None
        if parts is None:  # refused or dropped: some templates know no system messages
            try:
                parts = self._parts(_system_to_user(messages), options)
            except TemplateRefusal as refusal:
                raise BadRequest(
                    f"the model's chat template refused the conversation: {refusal}", param="messages"
                ) from None
        if parts is None:
            raise BadRequest(
                "the model's chat template drops a message of this conversation; send user and assistant messages in turn",
                param="messages",
            )
        if self._vocab.adds_bos and parts[:1] != [self._vocab.bos]:
            parts.insert(0, self._vocab.bos)
        return parts

    def _parts(self, messages: Sequence[Message], options: PromptOptions) -> list[Part] | None:
        """Render and take apart; None where the content of a message does not appear."""
        pieces = self._pieces(messages, options)
        return None if pieces is None else list(self._merged(pieces))

    @cached_property
    def _in_parts(self) -> bool:
        """Return whether the template only knows contents that are lists of parts, as templates for images do."""
        message, mark = [Message("user", "")], "\ue000"

        def shown(*, in_parts: bool) -> str:
            try:
                (text,) = self.renderer.render(
                    TemplateVariables.of(message, [mark], prompt=True, in_parts=in_parts)
                )
            except BrokenTemplate:  # of this shape only, or told again when a conversation is rendered
                return ""
            return text if isinstance(text, str) else ""

        if mark in shown(in_parts=False):
            return False
        parted = shown(in_parts=True)
        return mark in parted and "'type'" not in parted and '"type"' not in parted

    def _pieces(self, messages: Sequence[Message], options: PromptOptions) -> list[Piece] | None:
        if any(BRACKET.search(text) for text in texts_of(messages, options)[len(messages) :]):
            (whole,) = self.renderer.render(self._conversation(messages, options))
            if isinstance(whole, TemplateRefusal):
                raise whole
            return self._by_provenance(messages, options, whole, "")
        nonce = f"{secrets.randbits(64):020d}"
        marks = {f"\ue000{nonce}{i:06d}\ue001": message for i, message in enumerate(messages)}
        contents = [message.content for message in messages]
        shown = self._conversation(messages, options, [_around(m.content, mark) for mark, m in marks.items()])
        if sum(map(len, contents)) > MAX_REAL:
            (marked,) = self.renderer.render(shown)
            real = None
        else:
            real, marked = self.renderer.render(self._conversation(messages, options), shown)
        if isinstance(real, TemplateRefusal):
            raise real
        if isinstance(marked, TemplateRefusal):
            if real is None:
                raise marked
            return self._by_provenance(messages, options, real, "")
        split = re.split(f"(\ue000{nonce}\\d{{6}}\ue001)", marked)
        missing = [  # of results, those of earlier turns may be left out
            i
            for i, (mark, m) in enumerate(marks.items())
            if m.content.strip() and m.role != "tool" and mark not in split
        ]
        if missing:
            seen = real is not None and self._sees(messages, options, missing, real)
            return self._by_provenance(messages, options, real, marked) if seen and real is not None else None
        pieces: list[Piece] = [
            Content(m.content.strip(), m.tokens if m.content == m.content.strip() else ())
            if (m := marks.get(piece))
            else piece
            for piece in split
        ]
        if real is not None and real != "".join(p if isinstance(p, str) else p.text for p in pieces):
            return self._by_provenance(messages, options, real, marked)
        if messages[-1].role == "assistant":
            last = len(split) - 1 - split[::-1].index(list(marks)[-1])
            tail, kept = messages[-1].content, split[last + 1]
            blanks = tail[len(tail.rstrip()) :]
            pieces = [*pieces[: last + 1], blanks if kept.startswith(blanks) else ""]
        return pieces

    def _sees(
        self, messages: Sequence[Message], options: PromptOptions, which: Sequence[int], real: str
    ) -> bool:
        """Return whether each of these messages makes a difference to the text: a content may be cut, but must not be left out."""
        contents = [message.content for message in messages]
        for i in which:
            others = ("\ue000", f"\ue000{contents[i]}", f"{contents[i]}\ue000")
            variants = ([*contents[:i], other, *contents[i + 1 :]] for other in others)
            texts = self.renderer.render(
                *(self._conversation(messages, options, variant) for variant in variants)
            )
            if all(text == real for text in texts):
                return False
        return True

    def _by_provenance(
        self, messages: Sequence[Message], options: PromptOptions, real: str, marked: str
    ) -> list[Piece]:
        """Take apart a text of a template that looks into contents."""
        provenance = Provenance(texts_of(messages, options), self._tokenizer.literal, len(messages))
        found = self.renderer.render(
            *(self._conversation(messages, options, variant) for variant in provenance.variants)
        )
        end = len(real)
        if messages[-1].role == "assistant":
            end = _end_of(real, messages[-1].content)
        own = provenance.own_text(real[:end], [f if isinstance(f, str) else None for f in found], marked)
        return [text if is_own else Content(text) for text, is_own in own]

    def _conversation(
        self, messages: Sequence[Message], options: PromptOptions, texts: Sequence[str] = ()
    ) -> TemplateVariables:
        """Return the variables with these texts in the place of people's (TemplateVariables.of), or their own."""
        shown = texts or [message.content for message in messages]
        prompt = messages[-1].role != "assistant"
        return TemplateVariables.of(messages, shown, prompt=prompt, in_parts=self._in_parts, options=options)

    def _merged(self, pieces: Sequence[Piece]) -> Iterator[Part]:
        """Join text and content that touch: the tokenizer merges across that border, as it did in training."""
        run = ""
        behind_token = False
        for i, piece in enumerate(pieces):
            if (
                isinstance(piece, Content)
                and piece.tokens
                and self._stands_alone(pieces, i, run, behind_token)
            ):
                if run and run != " ":
                    yield run
                yield from piece.tokens
                run, behind_token = "", False
                continue
            for part in [piece.text] if isinstance(piece, Content) else self._tokenizer.split_literal(piece):
                if isinstance(part, str):
                    run += part
                    continue
                if text := self._spaced(run, behind_token):
                    yield text
                yield part
                run, behind_token = "", True
        if text := self._spaced(run, behind_token):
            yield text

    def _stands_alone(self, pieces: Sequence[Piece], at: int, run: str, behind_token: bool) -> bool:
        """Return whether an answer stands where it was sampled: after a token or a line end, and before a token."""
        following = pieces[at + 1] if at + 1 < len(pieces) else ""
        ended = isinstance(following, str) and isinstance(
            next(iter(self._tokenizer.split_literal(following)), None), int
        )
        if self._vocab.is_sentencepiece:
            return ended and behind_token and run == (" " if self._writes_prefix else "")
        return ended and (run.endswith("\n") or (behind_token and not run))

    def _spaced(self, run: str, behind_token: bool) -> str:
        """Leave out the space that the tokenizer puts there itself, where a template writes it after its tokens."""
        return run[1:] if behind_token and run.startswith(" ") and self._writes_prefix else run

    @cached_property
    def _writes_prefix(self) -> bool:
        """Return whether the template spells out SentencePiece's space ("[INST] Hi[/INST] Hello</s>")."""
        if not self._vocab.adds_space_prefix:
            return False
        messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
        (text,) = self.renderer.render(self._conversation(messages, NO_OPTIONS))
        parts = self._tokenizer.split_literal(text) if isinstance(text, str) else []
        runs = [b for a, b in pairwise(parts) if isinstance(a, int) and isinstance(b, str)]
        return bool(runs) and all(run.startswith(" ") for run in runs)


def _tokens(vocab: Vocab) -> dict[str, str]:
    ids = {"bos_token": vocab.bos, "eos_token": vocab.eos}
    return {name: vocab.text(token) if token >= 0 else "" for name, token in ids.items()}


def _clean(messages: Sequence[Message]) -> list[Message]:
    """Leave out answers to continue that are still empty: one is to begin. BadRequest where there is nothing else."""
    n = len(messages)
    while n and messages[n - 1].role == "assistant" and not messages[n - 1].content.strip():
        n -= 1
    if not n:
        raise BadRequest("messages has only empty answers; start with a user message", param="messages")
    return list(messages[:n])


def _with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with ids of calls as Mistral's templates demand them."""
    return [
        replace(
            one,
            calls=tuple(replace(call, id=nine(call.id)) for call in one.calls),
            call_id=nine(one.call_id) if one.call_id else "",
        )
        for one in messages
    ]


def _end_of(text: str, content: str) -> int:
    """Where the answer that is to be continued ends, as transformers finds it: with its outer blanks only if the template kept them."""
    start = text.rfind(content.strip())
    if start < 0:
        raise BadRequest(
            "the model's chat template changes the answer to continue; end with a user message",
            param="messages",
        )
    whole = content.lstrip()
    return start + len(whole if text.startswith(whole, start) else content.strip())


def _around(content: str, mark: str) -> str:
    """Put the mark in the place of the text between a content's outer white space, which templates like to strip."""
    inner = content.strip()
    if not inner:
        return content
    head, tail = content.split(inner, 1)
    return head + mark + tail


def _system_to_user(messages: Sequence[Message]) -> list[Message]:
    """Move a leading system text into the first user message, for templates that know no system role."""
    system, *rest = messages
    if system.role != "system" or not rest or rest[0].role != "user":
        return list(messages)
    return [Message("user", f"{system.content}\n\n{rest[0].content}"), *rest[1:]]
