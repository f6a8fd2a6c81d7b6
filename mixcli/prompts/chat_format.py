"""Turn chat messages into token ids; user text never becomes a control token.

A layout (formats.py, jinja.py) turns messages into parts: token ids for the template's control tokens, text for the rest,
each text one run as the model saw it in training. The text goes through content_tokenizer.py, which gives ordinary tokens only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mixcli.errors import BadRequest, UsageError
from mixcli.llama.model import Model, Vocab
from mixcli.prompts.answer_syntax import AnswerSyntax
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.format_check import TemplateProbes
from mixcli.prompts.formats import (
    candidates_for,
    for_vocabulary,
    format_without_template,
    known_format,
    layout_of,
    version_name,
    version_of,
)
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, Part, PromptOptions
from mixcli.prompts.mistral_formats import EFFORTS, MANNERS, WITH_SYSTEM, mistral

NO_EFFORT = "none"
WITHOUT_GAPS = ("mistral-v15",)  # formats that write the parts of a message without anything between them
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ChatFormat:
    """How one model wants its conversations: `name` ("mistral-v3", "chatml", "jinja") and what encodes them.

    `syntax` is how it writes calls and reasoning into its answers; `efforts` are the values of reasoning_effort that it knows.
    """

    name: str
    layout: Layout
    tokenizer: ContentTokenizer
    syntax: AnswerSyntax
    efforts: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model) -> "ChatFormat":
        """Recognize the format from the chat template and the vocabulary; raise UsageError for a base model, which has none."""
        template = model.chat_template or ""
        tokenizer = ContentTokenizer(model.vocab, template)
        if template:
            return cls._by_template(template, tokenizer, model.vocab)
        name = format_without_template(model.vocab, model.metadata("general.name") or model.path.name)
        if name is None:
            raise UsageError(
                f"{model.path.name} has no chat template: it is a base model, which continues text and cannot chat; "
                "use the Instruct version"
            )
        return cls._own(name, template, tokenizer, model.vocab)

    @classmethod
    def _own(cls, name: str, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> "ChatFormat":
        syntax = AnswerSyntax.of_format(name, vocab, template)
        efforts = EFFORTS if name == version_name(15) else ()
        return cls(name, layout_of(name, template, vocab), tokenizer, syntax, efforts)

    @classmethod
    def _by_template(cls, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> "ChatFormat":
        """Take the format of our own that writes what the template writes, else the template itself.

        A template without tools leaves open which version's calls are meant: then the vocabulary tells. One whose tools differ writes the
        conversations with tools.
        """
        candidates = candidates_for(template, vocab)
        known = known_format(template)
        if known in candidates:
            return cls._own(known, template, tokenizer, vocab)
        from mixcli.prompts.jinja import JinjaLayout

        jinja = JinjaLayout(template, tokenizer, vocab)
        probes = jinja.probes
        efforts = probes.efforts
        found = [_Candidate.of(name, template, tokenizer, vocab, probes) for name in candidates]
        alike = [one for one in found if any(map(probes.plain, one.written))]
        if not alike:
            return cls("jinja", jinja, tokenizer, jinja.syntax, efforts)
        if not probes.knows_tools:
            name = for_vocabulary([one.name for one in alike], vocab)
            layout = next(one.layout for one in alike if one.name == name)
            syntax = AnswerSyntax.of_format(name, vocab, template)
            return cls(
                name, layout, tokenizer, syntax, (efforts or EFFORTS) if name == version_name(15) else ()
            )
        for one in alike:
            if any(map(probes.with_tools, one.written)):
                syntax = AnswerSyntax.of_format(one.name, vocab, template)
                return cls(one.name, one.layout, tokenizer, syntax, efforts)
        return cls(alike[0].name, _either(alike[0].layout, jinja), tokenizer, jinja.syntax, efforts)

    def parts(self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> Iterable[Part]:
        """Return the prompt as control tokens and texts; errors as in `encode`."""
        check(messages)
        if self.name in WITHOUT_GAPS:
            messages = [replace(one, content="".join(one.parts)) if one.parts else one for one in messages]
        return self.layout(messages, replace(options, reasoning_effort=self._effort(options)))

    def encode(self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> list[int]:
        """Return the prompt's token ids, ready for the assistant's answer.

        Where the last message is the assistant's own, the answer continues it. Raises BadRequest for messages that make no
        conversation, and for options that the format has no place for.
        """
        ids: list[int] = []
        for part in self.parts(messages, options):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.tokenizer.encode(part)
        return ids

    def _effort(self, options: PromptOptions) -> str | None:
        """Return the reasoning_effort that the format is given; BadRequest for one, or for thinking, that it does not know."""
        effort, thinking = options.reasoning_effort, options.thinking
        reasons = self.syntax.reasoning is not None
        if thinking and not reasons:
            raise BadRequest(
                "this model does not think before it answers; remove enable_thinking", param="enable_thinking"
            )
        if thinking is False and reasons and NO_EFFORT not in self.efforts:
            raise BadRequest(
                "this model always thinks before it answers; remove enable_thinking", param="enable_thinking"
            )
        if None not in (effort, thinking) and (effort != NO_EFFORT) != thinking:
            raise BadRequest(
                f"reasoning_effort is {effort!r:.40}, but enable_thinking is {str(thinking).lower()}; remove one of them",
                param="reasoning_effort",
            )
        if effort is None and thinking is not None and self.efforts:
            return self.efforts[-1] if thinking else NO_EFFORT
        asks_nothing = (effort == NO_EFFORT and not reasons) or (
            options.is_default_effort and not self.efforts
        )
        if effort is not None and effort not in self.efforts and not asks_nothing:
            raise BadRequest(_no_effort(effort, self.efforts), param="reasoning_effort")
        return effort

    def encode_answer(self, text: str) -> list[int]:
        """Return the token ids of a text as the assistant would write it after a prompt."""
        return self.tokenizer.encode(text)


def check(messages: Sequence[Message]) -> None:
    """Raise BadRequest, naming the message, for an empty conversation, a role that does not exist, or results that answer no call."""
    if not messages:
        raise BadRequest("messages is empty; send at least one message", param="messages")
    open_calls: set[str] = set()
    for i, message in enumerate(messages):
        if message.role not in ROLES:
            raise BadRequest(
                f"messages[{i}].role is {message.role!r}; it must be one of {', '.join(ROLES)}",
                param=f"messages[{i}].role",
            )
        if message.role == "tool":
            if message.call_id not in open_calls:
                raise BadRequest(
                    f"messages.{i}.tool_call_id {message.call_id!r:.60} is not the id of an open call in the turn before; "
                    "send that call first",
                    param=f"messages.{i}.tool_call_id",
                )
            open_calls.remove(message.call_id)
        elif open_calls:
            break
        for call in message.calls:
            if call.id in open_calls:
                raise BadRequest(
                    f"messages.{i}.tool_calls has the id {call.id!r:.60} twice; send another id for each call",
                    param=f"messages.{i}.tool_calls",
                )
            open_calls.add(call.id)
    if open_calls:
        raise BadRequest(
            f"the tool call {min(open_calls)!r:.60} has no result; send the result of each call after it",
            param="messages",
        )


def _no_effort(effort: str, efforts: Sequence[str]) -> str:
    known = (
        f"it must be one of {', '.join(efforts)}" if efforts else "this model has no such setting; remove it"
    )
    return f"reasoning_effort is {effort!r:.40}; {known}"


def _either(plain: Layout, with_tools: Layout) -> Layout:
    def layout(messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> Iterable[Part]:
        has_tools = options.tools or any(one.calls or one.role == "tool" for one in messages)
        return (with_tools if has_tools else plain)(messages, options)

    return layout


@dataclass(frozen=True)
class _Candidate:
    """A format of our own that a template may be: its layout, and the ways in which a template of it may write."""

    name: str
    layout: Layout
    written: tuple[Layout, ...]

    @classmethod
    def of(
        cls, name: str, template: str, tokenizer: ContentTokenizer, vocab: Vocab, probes: TemplateProbes
    ) -> "_Candidate":
        if name == "chatml" or (version := version_of(name)) < WITH_SYSTEM:
            layout = layout_of(name, template, vocab)
            return cls(name, layout, (layout,))
        system = (
            (lambda: tokenizer.split_literal(probes.default_system())) if probes.default_system() else None
        )
        make = partial(mistral, vocab, version, probes.efforts or EFFORTS, system)
        written = tuple(make(manner=manner) for manner in MANNERS)
        return cls(name, written[0], written)
