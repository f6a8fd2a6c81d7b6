"""Turn chat messages into token ids; user text never becomes a control token.

A layout (formats.py, jinja.py) turns messages into parts: token ids for the template's control tokens, text for the rest,
each text one run as the model saw it in training. The text goes through content_tokenizer.py, which gives ordinary tokens only.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mixcli.errors import BadRequest, UsageError
from mixcli.llama.model import Model, Vocab
from mixcli.prompts.answer_syntax import AnswerSyntax
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.format_check import TemplateProbes, fingerprint
from mixcli.prompts.formats import chatml, mistral_v1
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, Part, PromptOptions
from mixcli.prompts.mistral_formats import EFFORTS, MANNERS, VERSIONS, WITH_SYSTEM, mistral, suits

NO_EFFORT = "none"
WITHOUT_GAPS = ("mistral-v15",)  # formats that write the parts of a message without anything between them
ROLES = ("system", "user", "assistant", "tool")

_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}]{0,8000}?)<\|im_end\|>")


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
        name = _from_vocabulary(model.vocab, model.metadata("general.name") or model.path.name)
        if name is None:
            raise UsageError(
                f"{model.path.name} has no chat template: it is a base model, which continues text and cannot chat; "
                "use the Instruct version"
            )
        return cls._own(name, template, tokenizer, model.vocab)

    @classmethod
    def _own(cls, name: str, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> "ChatFormat":
        syntax = AnswerSyntax.of_format(name, vocab, template)
        efforts = EFFORTS if name == _name(15) else ()
        return cls(name, _built(name, template, vocab), tokenizer, syntax, efforts)

    @classmethod
    def _by_template(cls, template: str, tokenizer: ContentTokenizer, vocab: Vocab) -> "ChatFormat":
        """Take the format of our own that writes what the template writes, else the template itself.

        A template without tools leaves open which version's calls are meant: then the vocabulary tells. One whose tools differ writes the
        conversations with tools.
        """
        candidates = _candidates(template, vocab)
        known = KNOWN.get(fingerprint(template))
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
            name = _by_tokens([one.name for one in alike], vocab)
            layout = next(one.layout for one in alike if one.name == name)
            syntax = AnswerSyntax.of_format(name, vocab, template)
            return cls(name, layout, tokenizer, syntax, (efforts or EFFORTS) if name == _name(15) else ())
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
        """Return the token ids of a text as the assistant would write it behind a prompt."""
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


def _candidates(template: str, vocab: Vocab) -> list[str]:
    """Name the formats of our own that a template may be, by its markers and by the tokens that the vocabulary has."""
    found = []
    if "<|im_start|>" in template and _has_chatml(vocab):
        found.append("chatml")
    if "[INST]" in template and "[INST]" in vocab.specials:
        found += [_name(version) for version in VERSIONS if suits(version, vocab)]
    elif "[INST]" in template and vocab.is_sentencepiece:
        found.append("mistral-v1")
    return found


def _by_tokens(names: Sequence[str], vocab: Vocab) -> str:
    """Return the one of some formats, newest first, that a vocabulary was made for, where they differ in tools only."""
    return names[0] if len(names) == 1 or _newest(vocab) not in names else _newest(vocab)


def _newest(vocab: Vocab) -> str:
    """Return the version that a vocabulary with control tokens was made for, as far as its tokens show it."""
    unsure = () if "[THINK]" in vocab.specials else (13,)  # as 11 without reasoning
    return _name(
        next(one for one in VERSIONS if suits(one, vocab) and not (one in unsure and suits(11, vocab)))
    )


def _from_vocabulary(vocab: Vocab, model_name: str) -> str | None:
    """Guess for the files of 2023, made before templates were kept in GGUF."""
    if _has_chatml(vocab):
        return "chatml"
    if "[INST]" in vocab.specials:
        return _newest(vocab)
    name = model_name.lower()
    if vocab.is_sentencepiece and any("instruct" in name.partition(one)[2] for one in ("mixtral", "mistral")):
        return "mistral-v1"
    return None


def _has_chatml(vocab: Vocab) -> bool:
    return "<|im_start|>" in vocab.specials and "<|im_end|>" in vocab.specials


def default_system(template: str) -> str | None:
    """Return the system message that a ChatML template puts in where the conversation has none."""
    for match in _DEFAULT_SYSTEM.finditer(template):
        if not re.search(r"""["']\s*[+~]""", match[1]):
            return match[1].replace("\\n", "\n")
    return None


def _name(version: int) -> str:
    return f"mistral-v{version}"


def _built(name: str, template: str, vocab: Vocab) -> Layout:
    if name == "chatml":
        return chatml(vocab, default_system(template))
    return mistral_v1(vocab) if name == _name(1) else mistral(vocab, _version(name))


def _version(name: str) -> int:
    return int(name.removeprefix("mistral-v"))


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
        if name == "chatml" or (version := _version(name)) < WITH_SYSTEM:
            layout = _built(name, template, vocab)
            return cls(name, layout, (layout,))
        system = (
            (lambda: tokenizer.split_literal(probes.default_system())) if probes.default_system() else None
        )
        make = partial(mistral, vocab, version, probes.efforts or EFFORTS, system)
        written = tuple(make(manner=manner) for manner in MANNERS)
        return cls(name, written[0], written)


# Templates that need no probing (test_likeness.py probes them): sha256 of the text
KNOWN = {
    # quantize/vocab/mistral_jinja.py
    "8e637d522e1ec1e89127d8f1d2bde2c01cc079daad984cc33339a10cafe967da": "mistral-v1",
    "d233eeab6e631035b609bc54f9a27b68e008a3a08af6da6734b1c6407b10ef24": "mistral-v2",
    "5e8e4aad1d1dbdc318e31278d0decf53718ad4a56661e1663510b0ce235a9d73": "mistral-v3",
    "ab10ce0d790af9d02f508d7217f8f32a36130c301630adcd8c6965785d6206f6": "mistral-v7",
    "87448fd5e0868e6cf887a8cd29e5ae4d7628a6186127ee5f48aa98e64f94653f": "mistral-v11",
    "9c432d08e2343d62fa9ba4af547343ad137c2b0494ac83048b377e1ebd132701": "mistral-v13",
    "99c65ddca6e7c742700000721f369f12920c9b4f59b4e651168d5e9cab1fcf1d": "mistral-v15",
    # SmolLM2, the demo
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "chatml",
}
