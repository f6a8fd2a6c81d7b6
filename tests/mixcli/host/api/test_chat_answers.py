"""Answers to chat requests, in this process: the behaviours that OpenAI's clients and llama-server's own tests expect."""

import gc
import json
from typing import Any

import pytest

from mixcli.host.preparation import Preparation
from tests.support.app import App, events_of
from tests.support.waiting import wait_for

TURN = {"role": "user", "content": "Hello"}
BOOK = [{"role": "system", "content": "Book"}, {"role": "user", "content": "What is the best book"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def answer(app: App, /, **fields: object) -> dict[str, Any]:
    response = app.chat(**fields)
    assert response.status_code == 200, response.text
    whole: dict[str, Any] = response.json()
    return whole


def text_of(app: App, /, **fields: object) -> str:
    (choice,) = answer(app, **fields)["choices"]
    text: str = choice["message"]["content"]
    return text


def error_of(app: App, /, status: int = 400, **fields: object) -> dict[str, Any]:
    response = app.chat(**fields)
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    return error


def test_an_answer_has_openais_form(tiny: App) -> None:
    found = answer(tiny, messages=BOOK, max_tokens=5)
    assert found["id"].startswith("chatcmpl-")
    assert (found["object"], found["model"]) == ("chat.completion", "tiny")
    assert found["system_fingerprint"].startswith("mixcli-")
    (choice,) = found["choices"]
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (0, "assistant", "length")
    usage = found["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert found["timings"]["predicted_n"] == 5


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_one_id_and_one_time_and_its_counts_if_asked(tiny: App, usage: bool) -> None:
    fields = {"stream_options": {"include_usage": True}} if usage else {}
    events = tiny.stream(messages=BOOK, max_tokens=6, **fields)
    assert len({(one["id"], one["created"], one["model"], one["object"]) for one in events}) == 1
    assert all(("usage" in one) == usage for one in events)
    if usage:
        assert [one["usage"] for one in events[:-1]] == [None] * (len(events) - 1)
        last = events.pop()
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == 6
    first, *rest = [one["choices"][0] for one in events]
    assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all("role" not in one["delta"] for one in rest)
    assert rest[-1]["delta"] == {}
    assert [one["finish_reason"] for one in (first, *rest)] == [None] * len(rest) + ["length"]
    assert "".join(one["delta"].get("content", "") for one in rest) == text_of(
        tiny, messages=BOOK, max_tokens=6
    )


def test_events_are_ascii(tiny: App) -> None:
    """U+2028 and U+0085 end a line for some readers of event streams; a host may write any text."""
    said = "\u2028\u0085\u2029\U0001f600\u00e9"
    response = tiny.chat(stream=True, structured_outputs={"choice": [said, said + "!"]})
    assert response.content.isascii()
    (delta,) = [one["choices"][0]["delta"] for one in events_of(response.content)][1:-1]
    assert delta["content"].startswith(said)


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_come_side_by_side(tiny: App, stream: bool) -> None:
    fields: dict[str, Any] = {"n": 3, "max_tokens": 40, "temperature": 1.5, "seed": 1, "logprobs": True}
    if stream:
        events = tiny.stream(**fields, stream_options={"include_usage": True})
        usage = events.pop()["usage"]
        choices = [one["choices"][0] for one in events]
        opened = [one["index"] for one in choices if one["delta"].get("role")]
        closed = {one["index"]: one["finish_reason"] for one in choices if one["finish_reason"]}
        assert (opened, closed) == ([0, 1, 2], dict.fromkeys(range(3), "length"))
        texts = [
            "".join(one["delta"].get("content", "") for one in choices if one["index"] == i) for i in range(3)
        ]
        tokens = [
            sum(len((one.get("logprobs") or {}).get("content", ())) for one in choices if one["index"] == i)
            for i in range(3)
        ]
        indices = [one["index"] for one in choices[3:]]
        assert indices != sorted(indices), "they are interleaved"
    else:
        found = answer(tiny, **fields)
        usage, choices = found["usage"], found["choices"]
        assert [one["index"] for one in choices] == [0, 1, 2]
        texts = [one["message"]["content"] for one in choices]
        tokens = [len(one["logprobs"]["content"]) for one in choices]
    assert tokens == [40, 40, 40]
    assert len(set(texts)) == 3, "each has a seed of its own"
    assert texts[0] == text_of(tiny, **{**fields, "n": 1}), "the first is the one of the seed"
    assert usage["completion_tokens"] == 120
    assert usage["prompt_tokens"] == answer(tiny)["usage"]["prompt_tokens"], "the prompt counts once"


def test_a_prompt_is_read_once_for_all_answers(tiny: App) -> None:
    before = tiny.state.engine.counts().n_prompt_tokens_done
    response = tiny.chat("A prompt that nobody has sent before: " + "word " * 20, n=8)
    n_prompt = response.json()["usage"]["prompt_tokens"]
    n_read = tiny.state.engine.counts().n_prompt_tokens_done - before
    assert len(response.json()["choices"]) == 8
    assert n_read <= n_prompt + 8, "each answer computes the last token of the prompt at most"


def test_answers_for_which_there_is_no_room_leave_nothing_behind(
    tiny: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixcli.host.loop.MAX_CALLS", 5)
    before = tiny.state.engine.counts().n_requests_done
    for stream in (False, True):
        response = tiny.chat(n=8, stream=stream, max_tokens=200)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        wait_for(lambda: len(tiny.state.engine._asked) <= 1)  # a thread may hold its last one
    assert tiny.state.engine.counts().n_requests_done == before, "those that had room were called off"
    assert len(answer(tiny, n=4)["choices"]) == 4


def test_refused_requests_count_no_longer(tiny: App) -> None:
    """Nothing waits for Python to look for cycles: what is held counts against the limit of requests."""
    gc.collect()
    gc.disable()
    try:
        for fields in ({"messages": BOOK * 100}, {"structured_outputs": {"grammar": "root ::= foo"}}, {}):
            for stream in (False, True):
                tiny.chat(stream=stream, **fields)
        wait_for(lambda: len(tiny.state.engine._asked) <= 1)
    finally:
        gc.enable()


def test_several_deterministic_answers_are_the_same_each_time(tiny: App) -> None:
    fields: dict[str, Any] = {"n": 2, "deterministic": True, "temperature": 1.5, "max_tokens": 5}
    first, second = (tiny.chat(**fields).content for _ in range(2))
    assert first == second
    assert len({one["message"]["content"] for one in json.loads(first)["choices"]}) == 2


def test_top_p_zero_takes_the_likeliest(tiny: App) -> None:
    greedy = text_of(tiny, max_tokens=8)
    assert {text_of(tiny, max_tokens=8, temperature=2, top_p=0) for _ in range(3)} == {greedy}
    assert {text_of(tiny, max_tokens=8, temperature=2, top_k=1) for _ in range(2)} == {greedy}


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"response_format": {"type": "json_object", "schema": {"const": "42"}}}, {'"42"'}),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "fo"}}}}, {'"fo"'}),
        ({"response_format": {"type": "json_schema", "schema": {"const": 1}}}, {"1"}),
        ({"json_schema": {"const": "42"}}, {'"42"'}),
        ({"guided_json": {"const": "42"}}, {'"42"'}),
        ({"guided_json": '{"const": "42"}'}, {'"42"'}),
        ({"guided_regex": "a{5}"}, {"aaaaa"}),
        ({"regex": "a{5}"}, {"aaaaa"}),
        ({"guided_choice": ["left", "right"]}, {"left", "right"}),
        ({"grammar": 'root ::= "a"{5,5}'}, {"aaaaa"}),
        ({"guided_grammar": 'root ::= "ab"'}, {"ab"}),
    ],
)  # fmt: skip
def test_an_answer_has_the_form_that_was_asked_for(
    tiny: App, fields: dict[str, Any], texts: set[str]
) -> None:
    found = answer(tiny, max_tokens=20, temperature=1, **fields)
    (choice,) = found["choices"]
    assert choice["message"]["content"] in texts
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ("string", "messages"),
        ([], "messages"),
        ([123], "messages.0"),
        ([{}], "messages.0.role"),
        ([{"role": 123}], "messages.0.role"),
        ([{"role": "nobody", "content": "x"}], "messages.0.role"),
        ([{"role": "system", "content": 123}], "messages.0.content"),
        ([{"content": "hello"}], "messages.0.role"),
        ([TURN, {}], "messages.1.role"),
        ([TURN, {"role": "user", "content": [{"type": "text"}]}], "messages.1.content.0.text"),
        ([TURN, {"role": "user", "content": [{"text": "x"}]}], "messages.1.content.0.type"),
    ],
)  # fmt: skip
def test_what_makes_no_conversation_is_refused(tiny: App, messages: object, param: str) -> None:
    error = error_of(tiny, messages=messages)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["code"] in {"missing_required_parameter", "invalid_type", "invalid_value"}


def test_a_last_message_of_the_assistant_is_continued(tiny: App) -> None:
    said = {"role": "assistant", "content": text_of(tiny, max_tokens=3)}
    parts = {"role": "assistant", "content": [{"type": "text", "text": said["content"]}]}
    whole = text_of(tiny, max_tokens=8)
    for message in (said, parts, {**said, "prefix": True}):
        for fields in ({}, {"continue_final_message": True, "add_generation_prompt": False}):
            rest = text_of(tiny, messages=[TURN, message], max_tokens=5, **fields)
            assert whole.startswith(said["content"])
            assert len(rest) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_has_its_numbers(tiny: App, stream: bool) -> None:
    error = error_of(tiny, messages=BOOK * 100, stream=stream)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert error["n_prompt"] > error["n_ctx"] == 256


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_spell_the_answer(tiny: App, stream: bool) -> None:
    fields: dict[str, Any] = {"max_tokens": 5, "logprobs": True, "top_logprobs": 10}
    if stream:
        choices = [one["choices"][0] for one in tiny.stream(**fields)]
        text = "".join(one["delta"].get("content", "") for one in choices)
        listed = [token for one in choices for token in (one.get("logprobs") or {}).get("content", ())]
    else:
        (choice,) = answer(tiny, **fields)["choices"]
        text, listed = choice["message"]["content"], choice["logprobs"]["content"]
    assert len(listed) == 5
    assert (
        bytes(byte for one in listed for byte in one["bytes"]).decode("utf-8", "replace").lstrip(" ") == text
    )
    assert all(one["logprob"] <= 0 and len(one["top_logprobs"]) == 10 for one in listed)


def test_a_biased_token_never_comes_or_always(tiny: App) -> None:
    (chosen,) = answer(tiny, max_tokens=1, return_token_ids=True)["choices"][0]["token_ids"]
    banned = answer(tiny, max_tokens=6, return_token_ids=True, logit_bias={str(chosen): -100})
    assert chosen not in banned["choices"][0]["token_ids"]
    other = banned["choices"][0]["token_ids"][0]
    forced = answer(tiny, max_tokens=3, return_token_ids=True, logit_bias={str(other): 100})
    assert forced["choices"][0]["token_ids"] == [other] * 3


@pytest.mark.parametrize("fields", [{"min_tokens": 5}, {"ignore_eos": True}])
def test_an_answer_is_not_ended_before_it_is_long_enough(tiny: App, fields: dict[str, Any]) -> None:
    """The end is made the likeliest token: it comes at once, or behind the least number of tokens."""
    forced = {"logit_bias": {str(tiny.end_token): 100}, "max_tokens": 9, "logprobs": True}
    assert answer(tiny, **forced)["usage"]["completion_tokens"] == 0
    found = answer(tiny, **forced, **fields)
    (choice,) = found["choices"]
    n, reason = (5, "stop") if "min_tokens" in fields else (9, "length")
    assert (found["usage"]["completion_tokens"], choice["finish_reason"]) == (n, reason)
    assert len(choice["logprobs"]["content"]) == n
    closed = answer(tiny, grammar='root ::= "a"', **{**forced, **fields})
    assert closed["choices"][0]["message"]["content"] == "a", "a constraint that is complete ends it before"


def test_a_stop_ends_the_answer_before_it(tiny: App) -> None:
    whole = text_of(tiny, max_tokens=12)
    stop = whole[len(whole) // 2 :][:3]
    found = answer(tiny, max_tokens=12, stop=stop)["choices"][0]
    assert (found["message"]["content"], found["finish_reason"]) == (whole[: whole.index(stop)], "stop")


@pytest.mark.parametrize(
    ("raw", "headers", "status", "param"),
    [
        (b"{", {}, 400, "body"),
        (b"", {}, 400, "body"),
        (b"\xff", {}, 400, "body"),
        (b"[]", {}, 400, "body"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temprature": 1}', {}, 400, "temprature"),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}',
            {},
            400,
            "tools.0.function",
        ),
        (b"{}", {"Idempotency-Key": ""}, 400, "Idempotency-Key"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_openais_form(
    tiny: App, raw: bytes, headers: dict[str, str], status: int, param: str
) -> None:
    response = tiny.post(CHAT, raw, {"Content-Type": "application/json", **headers})
    assert response.status_code == status
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/v1/chat", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_supported"),
        ("DELETE", "/v1/models", 405, "method_not_supported"),
        ("GET", "/mixcli/attach", 400, None),
        ("GET", "/mixcli/attach?keep_alive=x", 400, None),
    ],
)
def test_other_requests_are_refused_in_the_same_form(
    tiny: App, method: str, path: str, status: int, code: str
) -> None:
    response = tiny.send(method, path)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert error["message"]


def test_a_bug_is_an_error_of_the_same_form(tiny: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.state, "health", lambda: 1 / 0)
    response = tiny.send("GET", "/health")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "ZeroDivisionError" in response.json()["error"]["message"]
    assert response.headers["x-request-id"].startswith("req_")


def test_every_answer_has_an_id(tiny: App) -> None:
    answers = [
        tiny.chat(),
        tiny.chat(stream=True),
        tiny.chat(n=0),
        tiny.send("GET", "/nothing"),
        tiny.send("GET", "/health"),
    ]
    ids = [one.headers["x-request-id"] for one in answers]
    assert len(set(ids)) == len(ids)
    assert tiny.send("GET", "/health", headers={"X-Request-Id": "mine-5"}).headers["x-request-id"] == "mine-5"
    assert (
        tiny.send("GET", "/health", headers={"X-Request-Id": "m" * 500})
        .headers["x-request-id"]
        .startswith("req_")
    )


def test_a_prompt_is_encoded_once_for_all_answers(tiny: App, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []
    real = Preparation._encoded
    monkeypatch.setattr(Preparation, "_encoded", lambda *args: prepared.append(args) or real(*args))
    assert len(answer(tiny, n=4)["choices"]) == 4
    assert len(prepared) == 1
    other = tiny.post("/v1/completions", {"prompt": ["one", "two"], "n": 3, "max_tokens": 2}).json()
    assert len(other["choices"]) == 6
    assert len(prepared) == 3


def test_the_tokens_of_a_completion_come_where_they_are_wanted(tiny: App) -> None:
    body = {"prompt": "Hello", "max_tokens": 4, "temperature": 0, "return_token_ids": True}
    tiny.post(COMPLETIONS, body)  # now the prompt is in the cache, for both
    (whole,) = tiny.post(COMPLETIONS, body).json()["choices"]
    assert len(whole["token_ids"]) == 4
    response = tiny.post(COMPLETIONS, {**body, "stream": True, "stream_options": {"include_usage": True}})
    *events, last = events_of(response.content)
    assert events[-1]["choices"][0]["token_ids"] == whole["token_ids"]
    assert all(event["usage"] is None for event in events) and last["usage"]["completion_tokens"] == 4
    assert len({event["created"] for event in [*events, last]}) == 1
