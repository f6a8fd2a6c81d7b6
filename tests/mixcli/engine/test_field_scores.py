"""The fields of a written answer: what it costs to score thousands of them, in the thread that computes for all."""

import json
from math import exp

import pytest

from mixcli.engine.field_scores import MAX_LABELS, FieldEnds, FieldForm, FieldScores, WrittenToken
from mixcli.llama.model import Model
from mixcli.request.json_fields import path_name
from tests.support.costly import runs


def scored(smol: Model, answer: object, schema: object) -> tuple[FieldScores, list[str]]:
    """Return the scores of an answer, and the texts that were split into tokens for them."""
    split: list[str] = []

    def encode(text: str) -> list[int]:
        split.append(text)
        return smol.vocab.tokenize(text)

    written = [WrittenToken(token, -0.5) for token in smol.vocab.tokenize(json.dumps(answer))]
    form = FieldForm(json.dumps(schema), encode)
    return FieldScores(written, 0, form, smol.vocab, FieldEnds(smol.vocab), 1 << 20), split


def test_the_values_of_a_list_are_split_once_and_no_more_than_there_are_labels(smol: Model) -> None:
    values = [f"value {i}" for i in range(100)]
    scores, split = scored(smol, values * 40, {"type": "array", "items": {"enum": values}})
    assert scores.scores is not None
    assert len(scores.scores._ends_of) == 1000, "of ten fields, as the next hundred values would be too many"
    assert len(split) <= 2 * len(values)  # the first field stands behind a bracket, the others behind a comma
    assert MAX_LABELS == 1024


def test_a_field_is_the_product_over_its_tokens_wherever_it_stands(smol: Model) -> None:
    texts = ["one", "two words", "", 'Ü, und "x"', "drei"]
    answer = {"list": texts, "n": [12, 3.25, -1e30], "é": True}
    scores, _ = scored(smol, answer, {})
    found = {one.name: one for one in scores.results()}
    assert list(found) == [
        *(path_name(("list", i)) for i in range(5)),
        *(path_name(("n", i)) for i in range(3)),
        "é",
    ]
    whole = json.dumps(answer).encode()
    pieces = [smol.vocab.piece(token) for token in smol.vocab.tokenize(json.dumps(answer))]
    for text in ("two words", "drei"):
        begin = whole.index(json.dumps(text).encode()) + 1
        end = begin + len(text) + 1
        at, n = 0, 0
        for piece in pieces:
            n += at < end and at + len(piece) > begin
            at += len(piece)
        one = found[path_name(("list", texts.index(text)))]
        assert one.n_tokens == n
        assert one.probability == pytest.approx(exp(-0.5 * n))


def test_ten_thousand_fields_beside_a_large_enum_take_no_time(smol_path: object) -> None:
    code = f"""
import json
from pathlib import Path
from mixcli.engine.field_scores import FieldEnds, FieldForm, FieldScores, WrittenToken
from mixcli.llama.model import Model
model = Model.load_vocab(Path({str(smol_path)!r}))
values = [f"v{{i}}" for i in range(8000)]
written = [WrittenToken(token, -0.5) for token in model.vocab.tokenize(json.dumps(["v1"] * 10_000))]
form = FieldForm(json.dumps({{"type": "array", "items": {{"enum": values}}}}), model.vocab.tokenize)
print(len(FieldScores(written, 0, form, model.vocab, FieldEnds(model.vocab), 1 << 20).results()))
"""
    assert runs(code) == "10000"
