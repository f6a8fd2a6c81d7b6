"""How a model writes tool calls and reasoning into its answers: by which control tokens, or by which texts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mixcli.llama.model import Vocab
from mixcli.prompts.tool_text import BEGIN_CALL, END_CALL

CallStyle = Literal["list", "tokens", "tags"]

# How the two styles with control tokens, and the one with tags, look where a template writes a call of the tool NAME
_EXAMPLES: dict[CallStyle, str] = {
    "tokens": r"\[TOOL_CALLS\]\s*NAME(\[CALL_ID\]\w+)?\[ARGS\]\s*\{",
    "list": r'\[TOOL_CALLS\]\s*\[\s*\{"name": "NAME", "arguments": \{',
    "tags": r'<tool_call>\s*\{"name": "NAME", "arguments": \{',
}
# gpt-oss (Harmony): <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...; a name of a channel is plain text
CHANNEL, MESSAGE, START, END = CHANNEL_MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
ANALYSIS = "analysis"  # the channel of reasoning
_LONGEST_MARK = 12  # tokens, with white space after it
_LISTS = ("mistral-v2", "mistral-v3", "mistral-v7")


@dataclass(frozen=True)
class AnswerSyntax:
    """The style of calls, and the marks: `marks` are those that are tokens of their own, whose text no answer contains.

    `list`: [TOOL_CALLS] and a JSON list; `tokens`: [TOOL_CALLS], a name, [ARGS], JSON; `tags`: JSON between <tool_call> and </tool_call>.
    `reasoning` are the marks around it, None where the model has none. `has_ids`: calls have [CALL_ID]. `is_spaced`: a text begins with a
    space that the tokenizer puts there. `has_channels`: an answer is a row of messages in named channels, of which one is reasoning.
    """

    style: CallStyle = "tags"
    marks: tuple[tuple[int, str], ...] = ()
    reasoning: tuple[str, str] | None = None
    has_ids: bool = False
    is_spaced: bool = False
    has_channels: bool = False

    @classmethod
    def of(
        cls, style: CallStyle, vocab: Vocab, template: str = "", *, has_ids: bool = False
    ) -> "AnswerSyntax":
        """Return the syntax of a style in a vocabulary."""
        has_channels = CHANNEL in template and all(text in vocab.specials for text in CHANNEL_MARKS)
        reasoning = None
        if has_channels:
            reasoning = f"{CHANNEL}{ANALYSIS}{MESSAGE}", END
        elif "[THINK]" in vocab.specials and "[/THINK]" in vocab.specials:
            reasoning = "[THINK]", "[/THINK]"
        elif "</think>" in template:
            reasoning = "<think>", "</think>"
        texts = [BEGIN_CALL, END_CALL] if style == "tags" else ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"]
        around = CHANNEL_MARKS if has_channels else reasoning or ()
        ids = ((vocab.specials.get(text, -1), text) for text in (*texts, *around))
        # llama.cpp writes the marks of channels as text, though the model never means them so
        marks = tuple(
            (i, text) for i, text in ids if i >= 0 and (not vocab.piece(i) or text in CHANNEL_MARKS)
        )
        return cls(style, marks, reasoning, has_ids, vocab.adds_space_prefix, has_channels)

    @classmethod
    def of_format(cls, name: str, vocab: Vocab, template: str) -> "AnswerSyntax":
        """Return the syntax of one of the built-in formats."""
        if name in ("chatml", "mistral-v1"):
            return cls.of("tags", vocab, template)
        style: CallStyle = "list" if name in _LISTS else "tokens"
        return cls.of(style, vocab, template, has_ids=name == "mistral-v11")

    @classmethod
    def of_example(cls, text: str, tool: str, vocab: Vocab, template: str) -> "AnswerSyntax | None":
        """Read it off a text of a template with a call of `tool`; None for calls of another style."""
        for style, example in _EXAMPLES.items():
            if match := re.search(example.replace("NAME", re.escape(tool)), text):
                return cls.of(style, vocab, template, has_ids="[CALL_ID]" in match[0])
        return None

    def closing(self, vocab: Vocab) -> tuple[int, ...]:
        """Return the token ids of the mark after the reasoning; none where a model does not reason."""
        if self.reasoning is None:
            return ()
        token = next((token for token, text in self.marks if text == self.reasoning[1]), None)
        return tuple(vocab.tokenize(self.reasoning[1])) if token is None else (token,)

    def opens_reasoning(self, prompt: Sequence[int], vocab: Vocab) -> bool:
        """Return whether a prompt ends with the mark before the reasoning, as some templates have it."""
        if self.reasoning is None:
            return False
        ids = dict(self.marks)
        end = "".join(
            ids.get(token) or vocab.piece(token).decode("utf-8", "replace")
            for token in prompt[-_LONGEST_MARK:]
        )
        return end.rstrip().endswith(self.reasoning[0])
