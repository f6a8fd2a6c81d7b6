"""Random JSON schemas that can be satisfied, and a walk through a constraint by random logits that comes to an end."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from mixcli.engine.constraint import Constraint
from mixcli.llama.model import Vocab

Schema = dict[str, Any]

names = st.text(alphabet='abcdefgh_ é"\\', min_size=1, max_size=6)
# SmolLM2's vocabulary has no token for some bytes, so characters beyond the first planes cannot be written with it
characters = st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs",))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-1000, 1000), st.text(alphabet=characters, max_size=8)
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=5
)


@st.composite
def texts(draw: st.DrawFn) -> Schema:
    least = draw(st.integers(0, 6))
    kind = draw(st.sampled_from(["plain", "length", "pattern", "format"]))
    if kind == "length":
        return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 12))}
    if kind == "pattern":
        return {
            "type": "string",
            "pattern": draw(st.sampled_from([r"^[a-z]{2,5}$", r"^\d{3}-\d{4}$", "^(yes|no)$", "^a.c$"])),
        }
    if kind == "format":
        return {
            "type": "string",
            "format": draw(st.sampled_from(["uuid", "ipv4", "time", "date-time"])),
        }
    return {"type": "string"}


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    schema: Schema = {"type": draw(st.sampled_from(["integer", "number"]))}
    low = draw(st.none() | st.integers(-500, 500))
    if low is not None:
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
        if draw(st.booleans()):
            schema["maximum"] = low + draw(st.integers(1, 300))
    if schema["type"] == "integer" and low is None and draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 12))
    return schema


leaves = st.one_of(
    texts(),
    numbers(),
    st.just({"type": "boolean"}),
    st.just({"type": ["string", "null"]}),
    st.lists(values, min_size=1, max_size=4).map(lambda choices: {"enum": choices}),
    values.map(lambda value: {"const": value}),
)


def arrays(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def build(items: Schema, least: int, more: int, first: list[Schema]) -> Schema:
        schema: Schema = {"type": "array", "items": items, "minItems": least, "maxItems": least + more}
        return {**schema, "prefixItems": first} if first else schema

    return st.builds(build, inner, st.integers(0, 2), st.integers(0, 3), st.lists(inner, max_size=2))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(names, inner, max_size=4))
    schema: Schema = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    extra = draw(st.none() | st.just(False) | inner)
    return schema if extra is None else {**schema, "additionalProperties": extra}


def _any_of(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})


trees = st.recursive(leaves, lambda inner: arrays(inner) | objects(inner) | _any_of(inner), max_leaves=8)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """A tree, sometimes with a part that is reached by a reference, sometimes one that contains itself."""
    tree = draw(trees)
    if not draw(st.booleans()):
        return tree
    loop = {
        "type": "object",
        "properties": {"part": tree, "next": {"$ref": "#/$defs/loop"}},
        "required": ["part"],
    }
    return {
        "$ref": "#/$defs/loop",
        "$defs": {"loop": loop},
        "title": "a list of parts",
        "description": "linked",
    }


class Closer:
    """Adds to a row of logits what makes an answer end: the longer it goes on, the rarer is what keeps it open."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._rows = np.random.default_rng(0).normal(0, 3, (64, vocab.n_tokens)).astype(np.float32)
        self._push = np.zeros(vocab.n_tokens, np.float32)
        for token in range(vocab.n_tokens):
            piece = vocab.piece(token)
            if vocab.is_end(token):
                self._push[token] = 90
            elif piece == b'"':
                self._push[token] = 60
            elif piece in (b"}", b"]"):
                self._push[token] = 30

    def walk(self, constraint: Constraint, seed: int, patience: int = 30) -> tuple[list[int], bool]:
        """Follow the likeliest allowed token of random logits; give the tokens, and whether the answer came to its end."""
        random, tokens = np.random.default_rng(seed), list[int]()
        while len(tokens) < 600:
            if constraint.is_complete:
                return tokens, True
            logits = self._rows[random.integers(64)] + (self._push if len(tokens) > patience else 0)
            constraint.mask(logits)
            token = int(logits.argmax())
            if self._vocab.is_end(token):
                return tokens, constraint.may_end
            constraint.accept(token)
            tokens.append(token)
        return tokens, False


def allowed(constraint: Constraint, n_vocab: int) -> set[int]:
    """Return the tokens that a constraint lets through next."""
    row = np.zeros(n_vocab, np.float32)
    constraint.mask(row)
    return set(np.flatnonzero(row == 0).tolist())
