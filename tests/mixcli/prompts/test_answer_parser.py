"""Answers become content, reasoning and calls, in whatever pieces their tokens come."""

import random
from collections.abc import Sequence

import pytest

from mixcli.prompts.answer_parser import AnswerParser, Segment, joined
from mixcli.prompts.answer_syntax import CHANNEL_MARKS, AnswerSyntax

MARKS = ("[THINK]", "[/THINK]", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", *CHANNEL_MARKS)
IDS = tuple(enumerate(MARKS))
TOKENS = AnswerSyntax("tokens", IDS, ("[THINK]", "[/THINK]"), has_ids=True)
LIST = AnswerSyntax("list", IDS)
TAGS = AnswerSyntax("tags", (), ("<think>", "</think>"))
CHANNELS = AnswerSyntax("tags", IDS[5:], ("<|channel|>analysis<|message|>", "<|end|>"), has_channels=True)
TEXT = 99  # a token that has text

Answer = Sequence[str]  # marks, and texts


def parse(
    syntax: AnswerSyntax,
    answer: Answer,
    cut: random.Random | None,
    *,
    tools: bool = True,
    opened: bool = False,
) -> list[tuple[str, str, int]]:
    parser = AnswerParser(syntax, expects_calls=tools, in_reasoning=opened)
    found: list[Segment] = []
    for part in answer:
        if part in MARKS and MARKS.index(part) in dict(syntax.marks):
            found += parser.push(MARKS.index(part), "")
            continue
        rest = part
        while rest:
            n = cut.randint(1, 6) if cut else len(rest)
            found += parser.push(TEXT, rest[:n])
            rest = rest[n:]
    found += parser.flush()
    assert all(one.text for one in found if one.kind != "call")
    return [(one.kind, one.text, one.index) for one in joined(found)]


ADD = ("call", "add", 0)
CASES: list[tuple[AnswerSyntax, Answer, list[tuple[str, str, int]]]] = [
    (TOKENS, ["Hello.\n\n"], [("content", "Hello.\n\n", 0)]),
    (TOKENS, ["[THINK]", "a\n", "[/THINK]", "b"], [("reasoning", "a\n", 0), ("content", "b", 0)]),
    (TOKENS, ["[THINK]", "cut off"], [("reasoning", "cut off", 0)]),
    (TOKENS, ["[TOOL_CALLS]", "add", "[CALL_ID]", "abcdefgh1", "[ARGS]", '{"a": "[ARGS]"}'], [ADD, ("arguments", '{"a": "[ARGS]"}', 0)]),
    (
        TOKENS,
        ["So: ", "[TOOL_CALLS]", "add", "[ARGS]", "{}", "[TOOL_CALLS]", "sub", "[ARGS]", '{"b": 1'],
        [("content", "So: ", 0), ADD, ("arguments", "{}", 0), ("call", "sub", 1), ("arguments", '{"b": 1', 1)],
    ),
    (LIST, ["[TOOL_CALLS]", ' [{"name": "add", "arguments": {}}]'], [ADD, ("arguments", "{}", 0)]),
    (
        LIST,
        ["x", "[TOOL_CALLS]", '[{"name": "add", "arguments": {"a": "}]\\"", "b": [{}]}, "id": "abcdefgh1"}, {"name": "s\\u0075b", "arguments": {"c": {}}}]'],
        [("content", "x", 0), ADD, ("arguments", '{"a": "}]\\"", "b": [{}]}', 0), ("call", "sub", 1), ("arguments", '{"c": {}}', 1)],
    ),
    (CHANNELS, ["<|channel|>", "analysis", "<|message|>", "hm <tool_call>", "<|end|>", "<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "Paris."], [("reasoning", "hm <tool_call>", 0), ("content", "Paris.", 0)]),
    (CHANNELS, ["<|channel|>", "final", "<|message|>", '<tool_call>{"name":"add","arguments":{}}</tool_call>'], [ADD, ("arguments", "{}", 0)]),
    (CHANNELS, ["<|channel|>", "analysis", "<|message|>", "cut off"], [("reasoning", "cut off", 0)]),
    (CHANNELS, ["<|channel|>", "analysis", "<|message|>", "hm", "<|end|>", "<|start|>", "assis"], [("reasoning", "hm", 0)]),
    (CHANNELS, ["a text without any channel"], [("content", "a text without any channel", 0)]),
    (TAGS, ["a < b <tool> c</tool_call>"], [("content", "a < b <tool> c</tool_call>", 0)]),
    (TAGS, ['<tool_call>\n{"name": "add", "arguments": {"x": "</tool_call>"}}\n</tool_call>\n'], [ADD, ("arguments", '{"x": "</tool_call>"}', 0)]),
    (
        TAGS,
        ['\n<think>\nhm <tool_call></think>\n\nWell.\n<tool_call>{"name":"add","arguments":{}}</tool_call>\n<tool_call>\n{"name": "sub", "arguments": {"n": 1}}\n</tool_call>'],
        [("reasoning", "\nhm <tool_call>", 0), ("content", "\n\nWell.", 0), ADD, ("arguments", "{}", 0), ("call", "sub", 1), ("arguments", '{"n": 1}', 1)],
    ),
    (TAGS, ["<tool_call>\nnothing of that kind"], [("content", "\nnothing of that kind", 0)]),
    (TAGS, ["x <think>y</think>"], [("content", "x <think>y</think>", 0)]),
]  # fmt: skip


@pytest.mark.parametrize(("syntax", "answer", "expected"), CASES)
def test_an_answer_is_split_alike_in_any_pieces(
    syntax: AnswerSyntax, answer: Answer, expected: list[tuple[str, str, int]]
) -> None:
    assert parse(syntax, answer, None) == expected
    for seed in range(40):
        assert parse(syntax, answer, random.Random(seed)) == expected


def test_a_prompt_may_open_the_reasoning() -> None:
    assert parse(TAGS, ["a</think>b"], None, opened=True) == [("reasoning", "a", 0), ("content", "b", 0)]


@pytest.mark.parametrize(
    ("syntax", "answer", "calls"),
    [
        (TAGS, ['Well.<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "sub", "arguments": {}}\n</tool_call>'], ["add", "sub"]),
        (LIST, ["Well.", "[TOOL_CALLS]", '[{"name": "add", "arguments": {}}, {"name": "sub", "arguments": {}}]'], ["add", "sub"]),
    ],
)  # fmt: skip
def test_what_stands_behind_the_mark_of_a_call_is_never_content_wherever_an_answer_is_cut_off(
    syntax: AnswerSyntax, answer: list[str], calls: list[str]
) -> None:
    *marks, last = answer
    for end in range(last.find("<tool_call>") + len("<tool_call>") if not marks else 0, len(last)):
        found = parse(syntax, [*marks, last[:end]], None)
        content = "".join(text for kind, text, _ in found if kind == "content")
        assert content == "Well." or (syntax is TAGS and "<tool_call>".startswith(content[5:].strip()))
        names = [text for kind, text, _ in found if kind == "call"]
        assert names == calls[: len(names)]


@pytest.mark.parametrize(
    ("text", "opened", "shown"),
    [
        ("Well.\n<tool_c", False, [("content", "Well.", 0)]),
        ("Well.\n<tool_call", False, [("content", "Well.", 0)]),
        ("a <", False, [("content", "a <", 0)]),
        ("\n<thi", False, []),
        ("Hm.</thin", True, [("reasoning", "Hm.", 0)]),
        ("if a <tool", False, [("content", "if a", 0)]),
    ],
)
def test_a_mark_that_is_cut_off_at_the_maximum_length_is_not_shown(
    text: str, opened: bool, shown: list[tuple[str, str, int]]
) -> None:
    parser = AnswerParser(TAGS, expects_calls=True, in_reasoning=opened)
    found = [*parser.push(TEXT, text), *parser.flush(cut=True)]
    assert [(one.kind, one.text, one.index) for one in joined(found)] == shown
    whole = AnswerParser(TAGS, expects_calls=True, in_reasoning=opened)
    found = [*whole.push(TEXT, text), *whole.flush()]
    assert "".join(one.text for one in found).strip() == text.strip()  # the model itself ended there


def test_without_tools_a_call_is_content() -> None:
    answer = ["[TOOL_CALLS]", "add", "[ARGS]", "{}"]
    assert parse(TOKENS, answer, None, tools=False) == [("content", "[TOOL_CALLS]add[ARGS]{}", 0)]
    call = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    assert parse(TAGS, [call], None, tools=False) == [("content", call, 0)]


def test_arguments_come_while_they_are_written() -> None:
    parser = AnswerParser(TAGS, expects_calls=True)
    pieces = ['<tool_call>{"name": "add", "arguments": ', '{"text": "', "word", ' more"', "}"]
    seen = [parser.push(TEXT, piece) for piece in pieces]
    assert [[one.text for one in found] for found in seen] == [
        [],
        ["add", '{"text": "'],
        ["word"],
        [' more"'],
        ["}"],
    ]
