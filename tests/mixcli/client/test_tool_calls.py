"""Tool calls as servers stream them, and as some deviate from OpenAI."""

import json

import pytest

from mixcli.client.completions import calls_of, completion_of, delta_of
from mixcli.errors import MixcliError
from mixcli.host.protocol.messages import Delta
from mixcli.request.prompt import FunctionCall
from tests.mixcli.client.conftest import Serve, heard


def streamed(*deltas: list[dict[str, object]]) -> list[Delta]:
    return [delta_of({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}) for calls in deltas]


def piece(arguments: object, name: str = "", call_id: str | None = None, **place: int) -> dict[str, object]:
    return {**place, "id": call_id, "function": {"name": name, "arguments": arguments}}


def test_arguments_come_piece_by_piece() -> None:
    deltas = streamed(
        [piece("", "f", "a", index=0)],
        [piece('{"x', index=0)],
        [piece('": 1}', index=0), piece("{}", "g", "b", index=1)],
    )
    assert calls_of(deltas) == (FunctionCall("a", "f", '{"x": 1}'), FunctionCall("b", "g", "{}"))


def test_a_whole_answer_has_the_same_calls() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [piece("{}", "f", "a")]}
    deltas = [delta_of({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})]
    assert calls_of(deltas) == (FunctionCall("a", "f", "{}"),)
    joined = completion_of(deltas).body["choices"]
    assert isinstance(joined, list) and joined[0]["message"]["tool_calls"][0]["function"]["name"] == "f"


def test_whole_calls_without_an_index_stay_apart() -> None:
    """As Gemini's and Ollama's APIs send them."""
    deltas = streamed([piece("{}", "f", "a")], [piece({"x": 1}, "g", "b")])
    assert calls_of(deltas) == (FunctionCall("a", "f", "{}"), FunctionCall("b", "g", '{"x": 1}'))


def test_a_call_without_an_id_gets_one() -> None:
    assert calls_of(streamed([piece("{}", "f", index=0)])) == (FunctionCall("call_0", "f", "{}"),)


def test_what_is_not_a_call_is_left_out() -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "x", "tool_calls": None}}]}
    assert calls_of([delta_of(event)]) == ()
    assert delta_of({"choices": [{"index": 0, "delta": {"tool_calls": [1]}}]}).calls[0].name == ""


def test_an_answer_that_calls_without_end_is_given_up(serve: Serve) -> None:
    calls = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece("{}", "f", f"id{i}", index=i)]}}]} for i in range(1500)]  # fmt: skip
    with pytest.raises(MixcliError, match="calls more than 512 tools; truncated"):
        heard(serve(*(f"data: {json.dumps(call)}\n\n".encode() for call in calls)))


def test_arguments_of_many_pieces_are_joined_once() -> None:
    deltas = streamed([piece("[", "f", "a", index=0)], *([piece("1," * 50, index=0)] for _ in range(20_000)))
    assert len(calls_of(deltas)[0].arguments) == 1 + 100 * 20_000


def test_counts_that_count_nothing_are_left_out() -> None:
    numbers = (-1, 10**400, float("nan"), float("inf"), True, "3", None)
    for number in numbers:
        usage = {"prompt_tokens": number, "prompt_tokens_details": {"cached_tokens": number}}
        event = {"choices": [], "usage": usage, "timings": {"predicted_per_second": number}, "prompt_progress": {"total": number}, "dropped_messages": number}  # fmt: skip
        delta = delta_of(event)
        assert delta.usage and delta.timings and delta.prompt_progress
        assert (delta.usage.prompt_tokens, delta.usage.cached_tokens, delta.dropped_messages) == (None, 0, 0)
        assert (delta.timings.predicted_per_second, delta.prompt_progress.total) == (None, None)
