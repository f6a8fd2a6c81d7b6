"""Constraints over real vocabularies: what they let through, and what they write."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mixcli.engine.constraint import CACHED, Grammars
from mixcli.engine.constraint_spec import ConstraintSpec, Kind
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.token_sampler import NothingToChoose
from mixcli.errors import BadRequest
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model, Vocab
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.detokenizer import Detokenizer
from mixcli.prompts.messages import Message
from mixcli.request.short_schema import schema_of
from tests.mixcli.engine.schemas import Closer, allowed, schemas
from tests.support.models import MISTRAL, PLACEMENT

PERSON = schema_of("name, age int, tags [string], kind (a|b)")
LoadVocab = Callable[..., Model]


@pytest.fixture(scope="module")
def closer(smol: Model) -> Closer:
    return Closer(smol.vocab)


@pytest.fixture(scope="module")
def loaded(vocab_model: LoadVocab) -> Callable[[str], tuple[Vocab, Grammars]]:
    """Give one of Mistral's vocabularies with its grammars, built once."""
    made: dict[str, tuple[Vocab, Grammars]] = {}

    def load(name: str) -> tuple[Vocab, Grammars]:
        if name not in made:
            vocab = vocab_model(name).vocab
            made[name] = (vocab, Grammars(vocab))
        return made[name]

    return load


def spelled(vocab: Vocab, tokens: list[int], *, at_start: bool = True) -> str:
    """What a person gets to see of these tokens."""
    detokenizer = Detokenizer(vocab, at_start=at_start)
    return "".join(map(detokenizer.push, tokens)) + detokenizer.flush()


def check_random_schemas(grammars: Grammars, closer: Closer, vocab: Vocab, n: int) -> None:
    @settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(schemas(), st.integers(0, 1 << 30))
    def check(schema: dict[str, Any], seed: int) -> None:
        Draft202012Validator.check_schema(schema)
        constraint = grammars.compile(ConstraintSpec.of("json_schema", schema))
        tokens, ended = closer.walk(constraint, seed)
        text = spelled(vocab, tokens)
        assert ended, text
        Draft202012Validator(schema).validate(json.loads(text))

    check()


def test_random_schemas_give_valid_json(grammars: Grammars, closer: Closer, smol: Model) -> None:
    check_random_schemas(grammars, closer, smol.vocab, 100)


@pytest.mark.slow
def test_a_thousand_random_schemas_give_valid_json(grammars: Grammars, closer: Closer, smol: Model) -> None:
    check_random_schemas(grammars, closer, smol.vocab, 1000)


@pytest.mark.slow
def test_a_model_fills_a_schema(smol: Model, grammars: Grammars) -> None:
    """The real thing: prompt, decode, mask, choose; greedy and sampled."""
    question = [Message("user", "Give a person as JSON: Anna is 31, likes chess and rowing.")]
    prompt = ChatFormat.of(smol).encode(question)
    schema = schema_of("name, age int, likes [string], adult bool")
    schema["properties"]["name"]["maxLength"] = 20
    schema["properties"]["likes"] |= {"items": {"type": "string", "maxLength": 20}, "maxItems": 4}
    for params in (
        SamplingParams(temperature=0),
        SamplingParams(seed=1),
        SamplingParams(seed=2, top_k=0, mirostat=2),
    ):
        context, batch = Context(smol, PLACEMENT), Batch(PLACEMENT.n_batch)
        chooser = params.chooser(smol.vocab, context.n_ctx, prompt)
        constraint = grammars.compile(ConstraintSpec.of("json_schema", schema))
        tokens, fresh = list(prompt), list(prompt)
        while not constraint.is_complete and len(tokens) < 400:
            batch.clear()
            batch.extend(fresh, len(tokens) - len(fresh), 0, n_logits=1)
            assert context.decode(batch)
            logits = context.logits()
            constraint.mask(logits)
            fresh = [chooser.choose(logits)]
            constraint.accept(fresh[0])
            tokens += fresh
        chooser.close()
        person = json.loads(spelled(smol.vocab, tokens[len(prompt) :]))
        Draft202012Validator(schema).validate(person)


@pytest.mark.parametrize("name", MISTRAL)
@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(
    ("kind", "value", "pattern"),
    [
        ("regex", r"Paris( and London)?", r"Paris( and London)?"),
        ("regex", r" ?(yes|no)!{0,3}", r" ?(yes|no)!{0,3}"),
        ("regex", r"  [a-f]{3}", r"  [a-f]{3}"),
        ("grammar", 'root ::= "yes" | "no" "!"', "yes|no!"),
        ("grammar", 'start: DIGIT+ " km"\nDIGIT: /[0-9]/', r"[0-9]+ km"),
        ("json_object", "", r"\{.*\}"),
        ("json_schema", {"type": "string", "pattern": "^ab{1,3}$"}, '"ab{1,3}"'),
    ],
)
@pytest.mark.slow
def test_what_a_person_sees_fits_whatever_the_vocabulary(
    loaded: Callable[[str], tuple[Vocab, Grammars]],
    name: str,
    at_start: bool,
    kind: Kind,
    value: Any,
    pattern: str,
) -> None:
    """A SentencePiece answer begins with a space that the detokenizer takes away: it must be the tokenizer's, never the answer's."""
    vocab, grammars = loaded(name)
    random = np.random.default_rng(7)
    begins: set[bool] = set()
    for _ in range(4):
        constraint, tokens = grammars.compile(ConstraintSpec.of(kind, value), at_start=at_start), list[int]()
        while not constraint.is_complete and len(tokens) < 200:
            logits = random.normal(0, 3, vocab.n_tokens).astype(np.float32)
            if len(tokens) > 4:
                for end in (vocab.eos, vocab.tokenize("km")[-1]):
                    logits[end] += 50
            constraint.mask(logits)
            token = int(logits.argmax())
            if vocab.is_end(token):
                break
            constraint.accept(token)
            tokens.append(token)
        text = spelled(vocab, tokens, at_start=at_start)
        begins.add(vocab.piece(tokens[0]).startswith(b" "))
        if constraint.may_end or constraint.is_complete:
            assert re.fullmatch(pattern, text, re.DOTALL), text
    if value == r"  [a-f]{3}":
        assert begins == {True}
    if value == "Paris( and London)?" and not (at_start and vocab.adds_space_prefix):
        assert begins == {False}


def test_sentencepiece_lets_a_word_begin_with_its_own_space(
    loaded: Callable[[str], tuple[Vocab, Grammars]],
) -> None:
    vocab, grammars = loaded("v1")
    first = allowed(grammars.compile(ConstraintSpec.of("regex", "Paris")), vocab.n_tokens)
    assert vocab.tokenize("Paris")[0] in first
    assert vocab.piece(vocab.tokenize("Paris")[0]) == b" Paris"
    inside = allowed(grammars.compile(ConstraintSpec.of("regex", "Paris"), at_start=False), vocab.n_tokens)
    assert vocab.tokenize("Paris")[0] not in inside


@pytest.mark.parametrize("name", ["v1", "v3", "v7", "tekken-240911", None])
def test_control_tokens_write_nothing(
    loaded: Callable[[str], tuple[Vocab, Grammars]], name: str | None, smol: Model, grammars: Grammars
) -> None:
    vocab, made = loaded(name) if name else (smol.vocab, grammars)
    constraint = made.compile(ConstraintSpec.of("json_schema", {"type": "string"}), at_start=False)
    quote = next(token for token in range(vocab.n_tokens) if vocab.piece(token) == b'"')
    constraint.accept(quote)
    inside = allowed(constraint, vocab.n_tokens)
    assert len(inside) > 10_000
    silent = {token for token in range(vocab.n_tokens) if not vocab.piece(token)}
    assert silent
    assert inside.isdisjoint(silent)
    assert inside.isdisjoint(
        vocab.specials[text] for text in vocab.specials if re.fullmatch(r"\[/?[A-Z_]+\]", text)
    )
    assert not any(vocab.is_end(token) for token in inside)
    constraint.accept(quote)
    assert constraint.is_complete
    assert vocab.eos in allowed(constraint, vocab.n_tokens)
    assert all(vocab.is_end(token) for token in allowed(constraint, vocab.n_tokens))


def test_json_cannot_run_away_in_white_space(grammars: Grammars, smol: Model) -> None:
    vocab = smol.vocab
    white = np.array([not vocab.piece(token).strip() for token in range(vocab.n_tokens)])
    constraint = grammars.compile(
        ConstraintSpec.of("json_schema", {"type": "array", "items": {"type": "integer"}, "minItems": 9})
    )
    text = b""
    for _ in range(60):
        logits = np.where(white, 9.0, 0.0).astype(np.float32)
        logits[vocab.tokenize(",")[0]] = 5
        constraint.mask(logits)
        token = int(logits.argmax())
        constraint.accept(token)
        text += vocab.piece(token)
    assert not re.search(rb"\s\s|\n|\[\s", text)
    assert text.count(b", ") > 5


def test_forced_tokens_are_those_that_the_tokenizer_makes(grammars: Grammars, smol: Model) -> None:
    vocab = smol.vocab
    constraint = grammars.compile(ConstraintSpec.of("regex", "The capital of France is (Paris|Lyon)\\."))
    forced = constraint.forced()
    whole = vocab.tokenize("The capital of France is Paris.")
    assert forced == whole[: len(forced)]
    assert len(forced) >= 4
    assert constraint.forced() == forced  # looking does not accept
    for token in forced:
        assert token in allowed(constraint, vocab.n_tokens)
        constraint.accept(token)
    assert constraint.forced() == []


@pytest.mark.parametrize("name", ["v1", "tekken-240718"])
def test_forced_tokens_on_mistral(loaded: Callable[[str], tuple[Vocab, Grammars]], name: str) -> None:
    vocab, grammars = loaded(name)
    constraint, written = grammars.compile(ConstraintSpec.of("json_schema", PERSON)), b""
    for _ in range(50):
        for token in constraint.forced():
            assert token in allowed(constraint, vocab.n_tokens)
            constraint.accept(token)
            written += vocab.piece(token)
        if constraint.is_complete:
            break
        choice = min(
            allowed(constraint, vocab.n_tokens),
            key=lambda token: (not vocab.is_end(token), vocab.piece(token) not in (b'"', b"]", b"}"), token),
        )
        constraint.accept(choice)
        written += vocab.piece(choice)
    assert b'"name":' in written


def test_a_token_that_was_not_allowed_is_refused(grammars: Grammars, smol: Model) -> None:
    constraint = grammars.compile(ConstraintSpec.of("regex", "[0-9]+"))
    with pytest.raises(BadRequest):
        constraint.accept(smol.vocab.tokenize("word")[0])


def test_running_answers_do_not_disturb_each_other(grammars: Grammars, smol: Model) -> None:
    spec, n = ConstraintSpec.of("regex", "ab|cd"), smol.vocab.n_tokens
    first, second = grammars.compile(spec), grammars.compile(spec)
    before = allowed(second, n)
    first.accept(smol.vocab.tokenize("a")[0])
    assert allowed(second, n) == before


def test_compiled_grammars_are_kept_and_bounded(grammars: Grammars) -> None:
    for i in range(CACHED + 5):
        grammars.compile(ConstraintSpec.of("regex", f"number {i}"))
    assert len(grammars._compiled) == CACHED
    kept = grammars._compiled[(ConstraintSpec.of("regex", f"number {CACHED}"), False)]
    grammars.compile(ConstraintSpec.of("regex", f"number {CACHED}", param="response_format"))
    assert grammars._compiled[(ConstraintSpec.of("regex", f"number {CACHED}"), False)] is kept


def test_annotations_do_no_harm(grammars: Grammars) -> None:
    known = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "t",
        "description": "d",
        "default": 1,
    }
    grammars.compile(ConstraintSpec.of("json_schema", {**known, "type": "integer", "examples": [1]}))
    grammars.compile(ConstraintSpec.of("json_schema", {"x-guidance": {"lenient": True}, "type": "integer"}))
    grammars.compile(ConstraintSpec.of("json_schema", True))


def test_specs_are_keys() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    one, two = (
        ConstraintSpec.of("json_schema", schema),
        ConstraintSpec.of("json_schema", dict(schema), param="x"),
    )
    assert one == two
    assert hash(one) == hash(two)
    assert one.text.index('"b"') < one.text.index('"a"')  # the order of fields is the order of the answer
    with pytest.raises(BadRequest):
        ConstraintSpec.of("yaml", "a")  # type: ignore[arg-type]


def test_a_complete_answer_leaves_nothing_but_the_end(grammars: Grammars, smol: Model) -> None:
    constraint = grammars.compile(ConstraintSpec.of("regex", "a"))
    constraint.accept(smol.vocab.tokenize("a")[0])
    assert constraint.is_complete
    row = np.zeros(smol.vocab.n_tokens, np.float32)
    constraint.mask(row)
    assert smol.vocab.is_end(SamplingParams(temperature=0).chooser(smol.vocab, 64, ()).choose(row))
    row[:] = -np.inf
    with pytest.raises(NothingToChoose):
        SamplingParams().chooser(smol.vocab, 64, ()).choose(row)


def test_numba_is_not_needed() -> None:
    code = "import sys, mixcli.engine.constraint; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
