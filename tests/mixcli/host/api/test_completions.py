"""POST /v1/completions with OpenAI's own package: prompts of every kind, echo, log-probabilities, gaps; base models have them and no chat."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mixcli.client.process import Host
from tests.support.app import events_of
from tests.support.ports import Port, served
from tests.support.small_hosts import BASE, served_small
from tests.support.traces import TIE

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.model
CAPITAL = "The capital of France is"
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def port(file_host: Host) -> Iterator[Port]:
    with served(file_host.name.socket) as port:
        yield port


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with served_small(tmp_path_factory, BASE) as port:
        yield port


@pytest.fixture(scope="module")
def api(port: Port) -> "Iterator[openai.OpenAI]":
    import openai  # takes a second

    with openai.OpenAI(base_url=f"http://127.0.0.1:{port.number}/v1", api_key="-", max_retries=0) as api:
        yield api


def complete(port: Port, **body: Any) -> Any:
    answer = port.ask("POST", COMPLETIONS, {"model": "m", "temperature": 0, **body})
    assert answer.status == 200, answer.raw
    return answer.json


def refused(port: Port, **body: Any) -> Any:
    answer = port.ask("POST", COMPLETIONS, body)
    assert answer.status == 400, answer.raw
    return answer.json["error"]


def tokens_of(port: Port, text: str) -> list[int]:
    tokens: list[int] = port.ask("POST", "/tokenize", {"prompt": text}).json["tokens"]
    return tokens


def test_a_text_and_its_tokens_are_continued_alike_and_as_a_stream(api: "openai.OpenAI", port: Port) -> None:
    asked: Any = {"model": "demo", "temperature": 0, "max_tokens": 6}
    api.completions.create(
        prompt=CAPITAL, **asked
    )  # it comes out of the cache afterwards, with the same rounding each time
    whole = api.completions.create(prompt=CAPITAL, **asked)
    assert whole.object == "text_completion"
    assert "Paris" in whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (6, len(tokens_of(port, CAPITAL)))
    tokens = api.completions.create(prompt=tokens_of(port, CAPITAL), **asked)
    assert tokens.choices[0].text == whole.choices[0].text
    events = list(
        api.completions.create(prompt=CAPITAL, stream=True, stream_options={"include_usage": True}, **asked)
    )
    assert "".join(event.choices[0].text for event in events if event.choices) == whole.choices[0].text
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "length"
    assert events[-1].usage == whole.usage.model_copy(
        update={"prompt_tokens_details": events[-1].usage.prompt_tokens_details}
    )  # type: ignore[union-attr]
    assert len({event.id for event in events}) == 1


def test_several_prompts_and_answers_stand_in_order(port: Port) -> None:
    prompts = [CAPITAL, "One, two, three,"]
    single = [complete(port, prompt=one, max_tokens=4)["choices"][0]["text"] for one in prompts]
    several = complete(port, prompt=prompts, n=2, max_tokens=4)
    assert [(c["index"], c["text"]) for c in several["choices"]] == list(
        enumerate([single[0]] * 2 + [single[1]] * 2)
    )
    lists = complete(port, prompt=[tokens_of(port, one) for one in prompts], max_tokens=4)
    assert [c["text"] for c in lists["choices"]] == single
    n_prompt = sum(len(tokens_of(port, one)) for one in prompts)
    assert several["usage"]["prompt_tokens"] == lists["usage"]["prompt_tokens"] == n_prompt
    raw = port.ask(
        "POST", COMPLETIONS, {"prompt": prompts, "n": 2, "max_tokens": 4, "temperature": 0, "stream": True}
    ).raw
    events = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: {")]
    texts = dict.fromkeys(range(4), "")
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == [single[0]] * 2 + [single[1]] * 2


def test_answers_with_a_seed_differ_from_each_other_and_come_again(port: Port) -> None:
    asked: Any = {"prompt": "Once", "temperature": 2, "max_tokens": 8, "seed": 7, "n": 3}
    _, first, again = (
        complete(port, **asked)["choices"] for _ in range(3)
    )  # first the prompt is computed, then it is known
    assert [c["text"] for c in first] == [c["text"] for c in again]
    assert len({c["text"] for c in first}) == 3


def test_log_probabilities_come_in_the_older_form(port: Port) -> None:
    choice = complete(port, prompt=CAPITAL, max_tokens=5, logprobs=2)["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"] == [len("".join(found["tokens"][:i])) for i in range(5)]
    for token, logprob, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == logprob == max(top.values()), "greedy takes the most likely"
        assert len(top) == 2
    assert complete(port, prompt=CAPITAL, max_tokens=1)["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_comes_back_with_the_log_probabilities_of_its_tokens(port: Port, stream: bool) -> None:
    """As lm-eval scores texts; what was generated has the log-probabilities that its text has as a prompt."""
    answer = port.ask(
        "POST",
        COMPLETIONS,
        {"prompt": CAPITAL, "echo": True, "logprobs": 1, "max_tokens": 2, "temperature": 0, "stream": stream},
    )
    if stream:
        events = [
            json.loads(line[6:]) for line in answer.raw.decode().splitlines() if line.startswith("data: {")
        ]
        parts = [event["choices"][0] for event in events]
        text = "".join(part["text"] for part in parts)
        logprobs = [part["logprobs"] for part in parts if part["logprobs"]]
        found = {name: [one for each in logprobs for one in each[name]] for name in logprobs[0]}
    else:
        text, found = answer.json["choices"][0]["text"], answer.json["choices"][0]["logprobs"]
    assert text.startswith(CAPITAL)
    assert "".join(found["tokens"]) == text
    assert found["text_offset"][-1] == len(text) - len(found["tokens"][-1])
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    scored = complete(port, prompt=text, echo=True, logprobs=1, max_tokens=0)
    assert scored["choices"][0]["text"] == text
    assert scored["usage"]["completion_tokens"] == 0
    n = len(found["tokens"])
    assert scored["choices"][0]["logprobs"]["tokens"] == found["tokens"]
    for a, b in zip(
        scored["choices"][0]["logprobs"]["token_logprobs"][1:n], found["token_logprobs"][1:], strict=True
    ):
        assert math.isclose(a, b, abs_tol=TIE)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1 << 40]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": ["a"] * 100, "n": 100}, "n"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"prompt": "a", "tools": []}, "tools"),
        ({"prompt": "a", "return_progress": True}, "return_progress"),
        ({"prompt": "a", "temperature": -1}, "temperature"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": [1], "suffix": "b"}, "suffix"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_by_name(port: Port, body: dict[str, Any], param: str) -> None:
    error = refused(port, **body)
    assert (error["type"], error["param"].split(".")[0]) == ("invalid_request_error", param)


def test_a_prompt_beyond_the_context_is_refused_before_it_is_split(port: Port) -> None:
    for n_words in (5000, 12_000_000):  # the second has 60 MB
        error = refused(port, prompt="word " * n_words)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


def test_offsets_count_characters_of_several_tokens_once(port: Port) -> None:
    text = "é 🙂 ñandú end"
    scored = complete(port, prompt=text, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    assert scored["tokens"][-1] == " end" and scored["text_offset"][-1] == len(text) - len(" end")


def test_an_empty_suffix_is_none_where_no_gap_can_be_filled(port: Port) -> None:
    for suffix in ("", None):
        assert complete(port, prompt=CAPITAL, suffix=suffix, max_tokens=0)["usage"]["prompt_tokens"] == len(
            tokens_of(port, CAPITAL)
        )


def test_no_token_at_all_may_be_asked_for(port: Port) -> None:
    """To fill the cache or to count, as OpenAI allows; with `echo` the prompt comes back."""
    for echo, text in ((False, ""), (True, CAPITAL)):
        body = {"prompt": [CAPITAL, "Hi"], "n": 2, "max_tokens": 0, "echo": echo}
        whole = complete(port, **body)
        assert [one["text"] for one in whole["choices"][:2]] == [text, text]
        assert {one["finish_reason"] for one in whole["choices"]} == {"length"}
        n = len(tokens_of(port, CAPITAL)) + len(tokens_of(port, "Hi"))
        assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (n, 0)
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        events = events_of(port.ask("POST", COMPLETIONS, asked).raw)
        assert [one["choices"] for one in events] == [*([choice] for choice in whole["choices"]), []]
        assert [one["usage"] for one in events] == [None] * 4 + [whole["usage"]]
    assert refused(port, prompt="word " * 5000, max_tokens=0)["code"] == "context_length_exceeded"


def test_a_structure_holds_for_completions_too(port: Port) -> None:
    text = complete(port, prompt="The answer is", structured_outputs={"regex": " (yes|no)"}, max_tokens=9)
    assert text["choices"][0]["text"] in (" yes", " no")


@pytest.mark.parametrize("stream", [False, True])
def test_a_choice_tells_its_probabilities(port: Port, stream: bool) -> None:
    body = {"prompt": "The answer is", "guided_choice": [" yes", " no"], "stream": stream}
    answer = port.ask("POST", "/v1/completions", body)
    choice = events_of(answer.raw)[-1]["choices"][0] if stream else answer.json["choices"][0]
    assert list(choice["label_probs"]) == [" yes", " no"]
    assert sum(choice["label_probs"].values()) == pytest.approx(1)


def test_control_tokens_in_a_text_are_text_unless_the_client_wants_them(port: Port) -> None:
    marked = "<|im_start|>user"
    plain = port.ask("POST", "/tokenize", {"prompt": marked}).json["count"]
    special = port.ask("POST", "/tokenize", {"prompt": marked, "parse_special": True}).json["count"]
    assert special < plain
    assert complete(port, prompt=marked, max_tokens=1)["usage"]["prompt_tokens"] == plain
    assert (
        complete(port, prompt=marked, max_tokens=1, parse_special=True)["usage"]["prompt_tokens"] == special
    )


# a base model


@pytest.mark.slow
def test_a_base_model_continues_text_and_refuses_a_chat(base: Port) -> None:
    assert complete(base, prompt="", max_tokens=1)["usage"]["prompt_tokens"] == 1, "<s>"
    assert len(complete(base, prompt="Hello", max_tokens=3, ignore_eos=True)["choices"][0]["text"]) > 0
    refusal = base.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
    assert refusal.status == 400
    assert "base model" in refusal.json["error"]["message"]
    assert "/v1/completions" in refusal.json["error"]["message"]
    capabilities = base.ask("GET", "/v1/models").json["data"][0]["capabilities"]
    assert (capabilities["completion_chat"], capabilities["completion_fim"]) == (False, False)
