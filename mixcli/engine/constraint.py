"""Constrain an answer to a JSON schema, regex or grammar: mask the logits of forbidden tokens.

llguidance does the parsing; the only importer of it. Three things are decided here:

- **White space.** JSON is written on one line with at most one space after a comma or a colon, so a model cannot run away in
  white space. (It can still run on inside a text or a list that the schema leaves open: limit those, or max_tokens.)
- **The first space.** A SentencePiece answer that opens a turn begins with a space that belongs to the tokenizer and that the
  detokenizer takes away. The constraint allows it there, and demands it where the answer itself may begin with a space.
- **Control tokens.** Only tokens with a text can write the answer; those that look like chat markers count as control tokens too.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark
from numpy.typing import NDArray

from mixcli.engine.constraint_spec import GUIDANCE, ConstraintSpec
from mixcli.engine.json_schema import Unenforceable
from mixcli.errors import BadRequest
from mixcli.llama.model import Vocab

STACK_BYTES = 256 << 20  # reserved, not used; eight times what the deepest were seen to need
_STACK = threading.Lock()
CACHED = 32  # compiled grammars; each holds its lexer's states, of which the limits below allow some 60 MB at the very worst

_JSON_STYLE: dict[str, Any] = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": False,
    "lenient": False,
}
# A step's fuel bounds its time (some 15 ms), the lexer's states its memory (1 to 2 kB each)
_LIMITS = LLParserLimits(max_lexer_states=30_000, max_grammar_size=200_000, verbose_errors=False)
_MARKER = re.compile(rb"<.+>|\[/?[A-Z_0-9]+\]", re.DOTALL)
_SPECIAL = b"\xff"  # llguidance's sign for a token that is not text

TOO_COMPLEX = "it is too complex"
CIRCULAR = "a $ref that leads back to its own schema must stand alone; remove the keywords beside it"
# llguidance's error -> the error shown to users
_SAYINGS = {
    "NoExtension": "it allows no answer",
    "circular references with sibling": CIRCULAR,
    "coerce_one_of": "oneOf is supported only if its branches exclude each other; use anyOf",
    "forced bytes": "it requires text that this model's vocabulary cannot express",
    "fuel exhausted": TOO_COMPLEX,
    "too many expressions": TOO_COMPLEX,
    "too many states": TOO_COMPLEX,
    "oo many items": TOO_COMPLEX,
    "items; max is": TOO_COMPLEX,
    "too big": TOO_COMPLEX,
    "too large": TOO_COMPLEX,
    "TooComplex": TOO_COMPLEX,
}

# bit pattern of eight tokens -> what their logits are limited to: -inf where forbidden
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little")
_CEILINGS = np.where(_BITS == 1, np.float32(np.inf), np.float32(-np.inf))


class Grammars:
    """Compiles constraints for one model's vocabulary. `compile` may run in any thread, constraints belong to the engine's.

    Building it takes about half a second for 32,768 tokens. Must not be used after the model was closed.
    """

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab  # keeps alive what the tokenizer points to
        vocabulary, tokenize = vocab.addresses
        self._tokenizer: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=[_token_bytes(vocab, token) for token in range(vocab.n_tokens)],
            vocab_ptr=vocabulary,
            tokenize_fptr=tokenize,
            eos_token=list(vocab.ends) or vocab.eos,
        )
        self._compiled: OrderedDict[tuple[ConstraintSpec, bool], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        n_words = -(-vocab.n_tokens // 32)
        self._words = np.zeros(n_words, np.int32)
        self._ceilings = np.zeros((n_words * 4, 8), np.float32)

    def compile(self, spec: ConstraintSpec, *, at_start: bool = True) -> "Constraint":
        """Return a fresh constraint; `at_start` is true if the answer opens a turn (as in Detokenizer).

        Raises BadRequest in llguidance's words for what cannot be compiled, is too complex, or allows no answer.
        """
        key = (spec, at_start and self._vocab.adds_space_prefix)
        with self._lock:
            matcher = self._compiled.get(key)
        if matcher is None:
            matcher = _on_a_deep_stack(lambda: self._compile(*key))
        with self._lock:
            self._compiled[key] = matcher
            self._compiled.move_to_end(key)
            while len(self._compiled) > CACHED:
                self._compiled.popitem(last=False)
            return Constraint(self, matcher.deep_copy(), spec)

    def has(self, spec: ConstraintSpec, *, at_start: bool) -> bool:
        """Return whether a constraint is compiled already, so that another one of it costs nothing."""
        return (spec, at_start and self._vocab.adds_space_prefix) in self._compiled

    def _compile(self, spec: ConstraintSpec, spaced: bool) -> LLMatcher:
        if spec.kind == "answer":
            grammars = _whole_answer(spec)
            for arguments in grammars[
                1:
            ]:  # what is too complex in them would show in the middle of an answer
                self._matcher([{key: arguments[key] for key in arguments if key != "name"}], spec)
            return self._matcher(grammars, spec)
        answer = _grammar(spec)
        matcher = self._matcher([answer], spec)
        if not spaced:
            return matcher
        first = '" "' if matcher.validate_tokens([self._space]) else '" "?'
        return self._matcher(
            [{"lark_grammar": f"start: {first} @answer"}, {"name": "answer", **answer}], spec
        )

    @cached_property
    def _space(self) -> int:
        """Return a token that is one space; every SentencePiece vocabulary has one, be it as a byte."""
        return next(token for token in range(self._vocab.n_tokens) if self._vocab.piece(token) == b" ")

    def _matcher(self, grammars: list[dict[str, Any]], spec: ConstraintSpec) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, json.dumps({"grammars": grammars}), log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            probe = matcher.deep_copy()
            allowed = np.frombuffer(probe.compute_bitmask(), np.uint8)  # an empty language shows here
            first = np.flatnonzero(np.unpackbits(allowed, bitorder="little"))
            if not probe.is_stopped() and not matcher.is_accepting() and first.size:
                probe.consume_token(int(first[0]))  # and an object with too many fields here
                probe.compute_bitmask()
            matcher = probe if probe.is_error() else matcher
        if matcher.is_error():
            raise _refusal(matcher, spec)
        return matcher


class Constraint:
    """One running answer's place in its grammar."""

    def __init__(self, grammars: Grammars, matcher: LLMatcher, spec: ConstraintSpec) -> None:
        self._grammars, self._matcher, self.spec = grammars, matcher, spec

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all forbidden tokens to -inf, in place, shape (n_vocab,); the end is allowed where the answer may end.

        Raises BadRequest when this place of the grammar is too complex.
        """
        words, ceilings = self._grammars._words, self._grammars._ceilings
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        np.take(_CEILINGS, words.view(np.uint8), axis=0, out=ceilings, mode="clip")
        np.minimum(logits, ceilings.reshape(-1)[: len(logits)], out=logits)

    def accept(self, token: int) -> None:
        """Advance by a token that the mask allowed. Raises BadRequest for another one; the constraint is unusable then."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def is_complete(self) -> bool:
        """Return whether nothing more may come: the answer is over, with or without an end token."""
        return self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """Return whether the answer so far satisfies the constraint."""
        return self._matcher.is_accepting()

    def forced(self) -> list[int]:
        """Return the tokens that are certain to come next, [] where there is a choice; they are not accepted by this.

        They are the tokens that the tokenizer itself would make of the certain text, up to where a choice could change them.
        """
        tokens = self._matcher.compute_ff_tokens()
        if not tokens:
            return tokens
        text = b"".join(map(self._grammars._vocab.piece, tokens))
        return tokens if self._matcher.compute_ff_bytes().startswith(text) else []

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal(self._matcher, self.spec)


def _on_a_deep_stack(compile_: Callable[[], LLMatcher]) -> LLMatcher:
    """Run in a thread whose stack has room for the deepest grammar that fits into a request.

    llguidance descends as deep as rules and references lead; 64 KiB of them overflow a usual stack, which ends the process.
    """
    with _STACK:
        usual = threading.stack_size(STACK_BYTES)
        try:
            pool = ThreadPoolExecutor(1)
            compiled = pool.submit(compile_)
        finally:
            threading.stack_size(usual)
    with pool:
        return compiled.result()


def _token_bytes(vocab: Vocab, token: int) -> bytes:
    """Return what a token adds to an answer; a token that is not text is marked with its name."""
    piece = vocab.piece(token)
    bits = vocab.attributes(token)
    if not piece or bits & (Vocab.CONTROL | Vocab.UNKNOWN | Vocab.UNUSED):
        return _SPECIAL + vocab.text(token).encode()
    if bits & Vocab.USER_DEFINED and _MARKER.fullmatch(piece):
        return _SPECIAL + piece
    return piece


def _without_blank_lines(text: str) -> str:
    """Drop empty lines, over which the converter's search goes again and again."""
    return "\n".join(line for line in text.splitlines() if line.strip()) + "\n"


def _whole_answer(spec: ConstraintSpec) -> list[dict[str, Any]]:
    """Return the grammar of a whole answer, then those that it names: the arguments of its tools, and its content."""
    told = json.loads(spec.text)
    grammars = [{"lark_grammar": told["lark"]}]
    for i, schema in enumerate(told["schemas"]):
        arguments = ConstraintSpec("json_schema", schema, spec.param)
        grammars.append({"name": f"tool{i}", **_grammar(arguments)})
    if told["form"]:
        kind, text = told["form"]
        grammars.append({"name": "form", **_grammar(ConstraintSpec(kind, text, spec.param))})
    return grammars


def _grammar(spec: ConstraintSpec) -> dict[str, Any]:
    """Return the constraint as one grammar of llguidance. Raises BadRequest."""
    try:
        if spec.kind == "grammar":
            return {"lark_grammar": any_to_lark(_without_blank_lines(spec.text))}
        if spec.kind == "regex":
            made = LLMatcher.grammar_from_regex(spec.text)
            return {"lark_grammar": json.loads(made)["grammars"][0]["lark_grammar"]}
    except Exception as error:  # the converter from GBNF raises Exception itself
        why = " ".join(str(error).split())
        raise BadRequest(f"the {spec.kind} cannot be used: {why:.300}", param=spec.param) from None
    schema = {"type": "object"} if spec.kind == "json_object" else json.loads(spec.text)
    if schema is False:
        raise BadRequest("the JSON schema is false: it allows no answer", param=spec.param)
    said: dict[str, Any] = {} if schema is True else schema
    return {"json_schema": {**said, GUIDANCE: {**_JSON_STYLE, **said.get(GUIDANCE, {})}}}


def _name_of(spec: ConstraintSpec) -> str:
    """Return what a constraint is called in an error."""
    if spec.kind != "answer":
        return spec.kind.replace("_", " ").replace("json", "JSON")
    tools = ", ".join(json.loads(spec.text)["tools"])
    return f"schema of one of the tools {tools:.200}" if "," in tools else f"schema of tool {tools}"


def _refusal(matcher: LLMatcher, spec: ConstraintSpec) -> BadRequest:
    """Return llguidance's error of several lines as one sentence."""
    said = matcher.get_error()
    name = _name_of(spec)
    for words, saying in _SAYINGS.items():
        if words in said:
            kind = Unenforceable if saying in (TOO_COMPLEX, CIRCULAR) else BadRequest
            return kind(f"the {name} cannot be used: {saying}", param=spec.param)
    if match := re.search(r"^\s*error: (.+)", said, re.MULTILINE):
        why = match[1]
    else:
        lines = [
            line.strip() for line in said.splitlines() if not re.match(r"\s*(\^|\d+ \||<non-verbose)", line)
        ]
        why = re.sub(r"^at (\d+)\((\d+)\): ", r"line \1, column \2: ", " ".join(filter(None, lines)))
    return BadRequest(f"the {name} cannot be used: {why:.300}", param=spec.param)


__all__ = ["Constraint", "ConstraintSpec", "Grammars"]
