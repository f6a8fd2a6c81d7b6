"""Tool calls as servers stream them, and as some deviate from OpenAI."""

from mixcli.client.completions import calls_of, completion_of, delta_of
from mixcli.host.protocol.messages import Delta
from mixcli.request.prompt import FunctionCall


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
