"""Probabilities of the fields of a JSON answer, over the host's API, with models of random weights: against brute force, value by value."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.engine.logprobs import log_softmax
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message
from tests.support.app import App, instruct_app

VALUES: dict[str, list[object]] = {
    "team": ["billing", "technical", "tech", "sales", "Übersee"],
    "urgent": [True, False],
    "stars": list(range(-2, 13)),
    "paid": ["yes", "no", None],
}
SCHEMA = {
    "type": "object",
    "properties": {
        "team": {"$ref": "#/$defs/Team"},
        "urgent": {"type": "boolean", "description": "Does it burn?"},
        "note": {"type": "string", "pattern": "^[a-d]{2,5}$"},
        "stars": {"type": "integer", "minimum": -2, "exclusiveMaximum": 13},
        "paid": {"anyOf": [{"type": "string", "enum": ["yes", "no"]}, {"type": "null"}]},
        "price": {"type": "number", "minimum": 1, "maximum": 9},
    },
    "required": ["team", "urgent", "note", "stars", "paid", "price"],
    "additionalProperties": False,
    "$defs": {"Team": {"enum": VALUES["team"], "type": "string", "title": "Team"}},
}


@pytest.fixture(scope="module", params=["v3", "v13"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("fields")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(folder / "home"))
        patch.setenv("MIXCLI_KV_DISK", "0")
        with instruct_app(folder, request.param) as app:
            yield app


def thinking(app: App) -> dict[str, int]:
    """The bias that opens a thought and ends it at once, of a model that thinks: then the content begins behind it."""
    specials = app.state.engine._vocab.specials
    return {str(specials[mark]): 100 for mark in ("[THINK]", "[/THINK]") if mark in specials}


def asked(app: App, schema: dict[str, Any] = SCHEMA, **fields: object) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    options: dict[str, object] = {
        "max_tokens": 300,
        "field_probs": True,
        "return_token_ids": True,
        "logprobs": True,
        "logit_bias": thinking(app),
    }
    answer = app.chat("Who?", response_format=form, **{**options, **fields})
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert {int(token) for token in thinking(app)} <= set(choice["token_ids"])
    assert answer.json()["usage"]["completion_tokens"] == len(choice["token_ids"])
    return choice


def rows_behind(app: App, tokens: list[int], n_last: int) -> NDArray[np.float64]:
    """The log-probabilities behind the last tokens of a text that is computed alone; shape (n_last, vocabulary)."""
    loaded = app.state.engine._loaded
    n = len(tokens)
    batch = Batch(n)
    batch.extend(tokens, 0, 0, n_logits=n_last)
    with Context(loaded.model, replace(loaded.placement, n_ctx=1024, n_batch=n, n_ubatch=n)) as context:
        context.decode(batch)
        return log_softmax(np.stack([context.logits(i) for i in range(n - n_last, n)]))


def by_brute_force(app: App, answer: list[int], text: str, before: str, values: list[object]) -> list[float]:
    """Write each value behind what the answer has before it, sum up its tokens' log-probabilities, and normalize.

    Behind a value that another one begins with, token for token, comes its end: any token that begins with what may follow.
    """
    vocab = app.state.engine._vocab
    prompt = ChatFormat.of(app.state.engine._loaded.model).encode([Message("user", "Who?")])
    encode = app.state.engine._preparation.format.tokenizer.encode_rest
    ends = np.cumsum([len(vocab.piece(token)) for token in answer]).tolist()
    n_bytes = len(text[: text.index(before) + len(before)].encode())
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    texts = [one[:-1] if one[0] == '"' else one for one in texts]
    if all(isinstance(value, str) for value in values):
        n_bytes, texts = n_bytes + 1, [one[1:] for one in texts]
    n_kept = sum(end <= n_bytes for end in ends)
    lead = text.encode()[ends[n_kept - 1] : n_bytes].decode()
    labels = [encode(lead + one) for one in texts]
    sums = []
    for label, value in zip(labels, values, strict=True):
        rows = rows_behind(app, [*prompt, *answer[:n_kept], *label], len(label) + 1)
        total = sum(float(row[token]) for row, token in zip(rows, label, strict=False))
        if any(other != label and other[: len(label)] == label for other in labels):
            signs = b'"' if isinstance(value, str) else b",}]"
            closing = [i for i in range(vocab.n_tokens) if vocab.piece(i)[:1] and vocab.piece(i)[0] in signs]
            total += float(np.log(np.exp(rows[-1][closing]).sum()))
        sums.append(total)
    weights = np.exp(np.array(sums) - max(sums))
    return list(weights / weights.sum())


def test_listed_values_have_the_probabilities_of_brute_force(app: App) -> None:
    choice = asked(app)
    text, found = choice["message"]["content"], choice["field_probs"]
    parsed = json.loads(text)
    assert list(found) == list(SCHEMA["properties"])
    for name, values in VALUES.items():
        assert parsed[name] in values
        before = f'"{name}":' + " " * text.partition(f'"{name}":')[2].startswith(" ")
        expected = by_brute_force(app, choice["token_ids"], text, before, values)
        names = [one if isinstance(one, str) else json.dumps(one) for one in values]
        assert list(found[name]["values"]) == names
        assert list(found[name]["values"].values()) == pytest.approx(expected, abs=0.004), name
        assert sum(expected) == pytest.approx(1)
        assert found[name]["probability"] == found[name]["values"][names[values.index(parsed[name])]]


def test_texts_and_numbers_have_the_product_of_their_tokens(app: App) -> None:
    choice = asked(app)
    tokens = [(bytes(one["bytes"]), one["logprob"]) for one in choice["logprobs"]["content"]]
    text = b"".join(piece for piece, _ in tokens)
    for name in ("note", "price"):
        value = json.dumps(json.loads(text)[name]).encode()
        begin = text.index(value, text.index(name.encode()))
        at, logprobs = 0, []
        for piece, logprob in tokens:
            if at < begin + len(value) and at + len(piece) > begin + value.startswith(b'"'):
                logprobs.append(logprob)
            at += len(piece)
        found = choice["field_probs"][name]
        assert found == {"token_product": pytest.approx(np.exp(sum(logprobs))), "n_tokens": len(logprobs)}


def test_what_was_written_decides_nothing_else(app: App) -> None:
    """The answer is the one without probabilities; a stream has them with its last piece; the same request gives the same bytes."""
    asked(app)  # the prompt comes out of the cache afterwards, with the same rounding each time
    with_fields = asked(app)
    without = asked(app, field_probs=False)
    assert "field_probs" not in without
    assert with_fields["token_ids"] == without["token_ids"]
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    events = app.stream(
        "Who?", response_format=form, max_tokens=300, field_probs=True, logit_bias=thinking(app)
    )
    last = next(event["choices"][0] for event in events if event["choices"][0]["finish_reason"])
    streamed = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert streamed == with_fields["message"]["content"]
    assert last["field_probs"].keys() == with_fields["field_probs"].keys()
    twice = [asked(app, deterministic=True)["field_probs"] for _ in range(2)]
    assert twice[0] == twice[1]


def test_lists_and_single_values_have_names(app: App) -> None:
    flags = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    found = asked(app, flags)["field_probs"]
    assert list(found) == ["[0]", "[1]"]
    assert all(list(one["values"]) == ["true", "false"] for one in found.values())
    alone = asked(app, {"type": "integer", "minimum": 1, "maximum": 12})
    assert list(alone["field_probs"]) == ["answer"]
    assert sum(alone["field_probs"]["answer"]["values"].values()) == pytest.approx(1)
    empty = asked(app, {"type": "object", "properties": {}, "additionalProperties": False})["field_probs"]
    assert list(empty) == ["answer"]


def test_an_answer_that_is_cut_off_has_no_fields(app: App) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    choice = app.chat("Who?", response_format=form, field_probs=True, max_tokens=3).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert "field_probs" not in choice


@pytest.mark.parametrize(
    "fields",
    [{}, {"structured_outputs": {"regex": "a"}}, {"structured_outputs": {"choice": ["a", "b"]}}],
    ids=["free", "regex", "choice"],
)
def test_other_answers_have_none(app: App, fields: dict[str, object]) -> None:
    answer = app.chat("Who?", field_probs=True, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "field_probs"
