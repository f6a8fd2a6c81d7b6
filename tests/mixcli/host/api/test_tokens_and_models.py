"""Token routes as llama-server and vLLM have them, models as OpenAI and Mistral read them, metrics, docs."""

import re
from collections.abc import Iterator
from datetime import datetime

import pytest

from mixcli.client.process import Host
from mixcli.host.protocol.paths import ROUTES
from tests.support.ports import Port, served

pytestmark = pytest.mark.model
QUESTION = [{"role": "user", "content": "What is 2+2? Grüße 🙂"}]


@pytest.fixture(scope="module")
def port(file_host: Host) -> Iterator[Port]:
    with served(file_host.name.socket) as port:
        yield port


def test_tokens_go_to_text_and_back(port: Port) -> None:
    text = "Two words, naïve 🙂 <|im_end|> here"
    split = port.ask("POST", "/tokenize", {"content": text, "with_pieces": True}).json
    ids = [one["id"] for one in split["tokens"]]
    assert (
        b"".join(
            p.encode() if isinstance(p := one["piece"], str) else bytes(p) for one in split["tokens"]
        ).decode()
        == text
    )
    vllm = port.ask(
        "POST",
        "/tokenize",
        {"model": "m", "prompt": text, "add_special_tokens": False, "return_token_strs": True},
    ).json
    assert (vllm["tokens"], vllm["count"], len(vllm["token_strs"])) == (ids, len(ids), len(ids))
    assert vllm["max_model_len"] == 2048
    back = port.ask("POST", "/detokenize", {"tokens": ids}).json
    assert back["content"] == back["prompt"] == text


def test_a_template_is_shown_as_the_model_sees_it(port: Port) -> None:
    prompt = port.ask("POST", "/apply-template", {"messages": QUESTION}).json["prompt"]
    assert prompt.endswith(f"<|im_start|>user\n{QUESTION[0]['content']}<|im_end|>\n<|im_start|>assistant\n")
    of_chat = port.ask("POST", "/tokenize", {"messages": QUESTION}).json["tokens"]
    assert port.ask("POST", "/detokenize", {"tokens": of_chat}).json["content"] == prompt
    parsed = port.ask("POST", "/tokenize", {"content": prompt, "parse_special": True}).json["tokens"]
    assert parsed == of_chat


def test_a_template_is_shown_for_a_whole_chat_request(port: Port) -> None:
    alone = port.ask("POST", "/apply-template", {"messages": QUESTION}).json
    whole = {"max_tokens": (1 << 31) - 1, "temperature": 0.5, "stream": True, "stop": ["x"], "logprobs": True}
    assert port.ask("POST", "/apply-template", {"messages": QUESTION, **whole}).json == alone


def test_tools_stand_in_the_prompt(port: Port) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "description": "The weather."}}
    body = {"messages": QUESTION, "tools": [tool], "tool_choice": "auto"}
    prompt = port.ask("POST", "/apply-template", body).json["prompt"]
    assert '"name": "get_weather"' in prompt
    split = port.ask("POST", "/tokenize", {"messages": QUESTION, "tools": [tool]}).json
    assert port.ask("POST", "/detokenize", {"tokens": split["tokens"]}).json["content"] == prompt
    chat = port.ask("POST", "/v1/chat/completions", {**body, "max_tokens": 1}).json
    assert chat["usage"]["prompt_tokens"] == split["count"]


TOOL = {"function": {"name": "f"}}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"prompt": "a", "tools": [TOOL]}, "tools"),
        ("/tokenize", {"messages": QUESTION, "tools": [TOOL, TOOL]}, "tools.1.function.name"),
        ("/apply-template", {"messages": QUESTION, "reasoning_effort": "high"}, "reasoning_effort"),
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "a"}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [1 << 30]}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/v1/embeddings", {"input": "a"}, "model"),
        ("/v1/embeddings", {"input": []}, "input"),
    ],
)
def test_what_is_wrong_is_named(port: Port, path: str, body: object, param: str) -> None:
    refused = port.ask("POST", path, body)
    assert (refused.status, refused.json["error"]["param"]) == (400, param), refused.raw


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize", "/apply-template"])
@pytest.mark.parametrize("token", [-1, 1 << 31, 1 << 62])
def test_token_ids_that_do_not_exist_are_refused(port: Port, path: str, token: int) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "4", "token_ids": [1, token]}, *QUESTION]
    refused = port.ask("POST", path, {"messages": messages})
    assert (refused.status, refused.json["error"]["param"]) == (400, "messages.1.token_ids")


def test_models_are_listed_and_described(port: Port) -> None:
    import openai  # takes a second

    with openai.OpenAI(base_url=f"http://127.0.0.1:{port.number}/v1", api_key="-", max_retries=0) as api:
        (listed,) = api.models.list().data
        assert listed.id == "demo:Q4_K_M"
        assert api.models.retrieve("demo:Q4_K_M") == api.models.retrieve("demo") == listed
        with pytest.raises(openai.NotFoundError) as raised:
            api.models.retrieve("mistralai/Mixtral-8x7B")
    assert raised.value.code == "model_not_found"
    card = port.ask("GET", "/models/demo:Q4_K_M/").json
    assert (card["max_model_len"], card["capabilities"]["completion_chat"]) == (2048, True)
    assert card["type"] == "base", "mistralai's client wants to see it"
    page = port.ask("GET", "/v1/models").json  # as Anthropic's client reads it
    assert (page["first_id"], page["last_id"], page["has_more"]) == (card["id"], card["id"], False)
    assert card["display_name"] == card["id"]
    assert datetime.fromisoformat(card["created_at"]).timestamp() == card["created"]


def test_metrics_count_what_was_computed(port: Port) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def value(name: str) -> float:
        answer = port.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(answer.raw.decode())
        return sum(s.value for family in families for s in family.samples if s.name == f"mixcli_{name}")

    names = (
        "generation_tokens_total",
        "prompt_tokens_total",
        "requests_total",
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_count",
    )
    before = [value(name) for name in names]
    body = {"messages": QUESTION, "max_tokens": 5, "ignore_eos": True}
    answer = port.ask("POST", "/v1/chat/completions", body).json
    grown = [value(name) - old for name, old in zip(names, before, strict=True)]
    assert grown == [5, answer["usage"]["prompt_tokens"], 1, 1, 4]
    again = port.ask("POST", "/v1/chat/completions", body).json
    assert value("prompt_tokens_cached_total") >= again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert 0 < value("kv_cache_usage_ratio") <= 1
    assert (value("num_requests_running"), value("num_requests_waiting")) == (0, 0)


def test_the_document_has_every_public_route_and_the_page_needs_nothing_from_elsewhere(port: Port) -> None:
    paths = port.ask("GET", "/openapi.json").json["paths"]
    hidden = {"/docs", "/openapi.json"}
    assert set(paths) == {route.path for route in ROUTES if route.is_public} - hidden
    assert paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"][
        "properties"
    ]["echo"]
    page = port.ask("GET", "/docs").raw.decode()
    assert "/v1/chat/completions" in page
    assert not re.search(r"https?://", page)
