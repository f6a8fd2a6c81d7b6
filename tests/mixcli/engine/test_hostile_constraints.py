"""Constraints that make no sense, and those made to cost a lot: refused in one sentence, or cheap."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixcli.engine.constraint import Grammars
from mixcli.engine.constraint_spec import MAX_BYTES, ConstraintSpec, Kind
from mixcli.errors import BadRequest
from mixcli.llama.model import Model
from tests.mixcli.engine.schemas import allowed

OBJECT: dict[str, Any] = {"type": "object"}


def deep(n: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(n):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("json_schema", "{}", "must be an object"),
        ("json_schema", [1], "must be an object"),
        ("json_schema", None, "must be an object"),
        ("json_schema", False, "allows no answer"),
        ("json_schema", {"type": "strnig"}, "strnig"),
        ("json_schema", {"type": 3}, "cannot be used"),
        ("json_schema", {"not": {}}, "not"),
        ("json_schema", {"format": "color", "type": "string"}, "color"),
        ("json_schema", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "use anyOf"),
        ("json_schema", {"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ("json_schema", {"minimum": math.nan}, "not valid JSON"),
        ("json_schema", {"enum": [{1, 2}]}, "not JSON"),
        ("json_schema", {"$ref": "http://127.0.0.1/x"}, "only references inside"),
        ("json_schema", {"items": {"$ref": "other.json#/a"}}, "only references inside"),
        ("json_schema", {"$ref": "#/$defs/none"}, "cannot be used"),
        ("json_schema", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no answer"),
        ("json_schema", {"$ref": "#"}, "no answer: # requires itself"),
        (
            "json_schema",
            OBJECT | {"required": ["a"], "properties": {"a": {"$ref": "#"}}},
            "# requires itself",
        ),
        (
            "json_schema",
            OBJECT
            | {
                "required": ["b"],
                "properties": {"b": {"$ref": "#/$defs/b"}},
                "$defs": {"b": {"type": "array", "minItems": 1, "items": {"$ref": "#/properties/b"}}},
            },
            "requires itself",
        ),
        ("json_schema", OBJECT | {"properties": {"a": {"$ref": "#", "required": ["b"]}}}, "must stand alone"),
        ("json_schema", {"maxLength": 10**9}, "the limit is 10,000"),
        ("json_schema", {"type": "array", "minItems": 1e300}, "the limit is 10,000"),
        ("json_schema", {"type": "string", "pattern": "a{1,99999}"}, "the limit is 10,000"),
        ("json_schema", {"type": "string", "pattern": "a(?=b)"}, "look-around"),
        ("json_schema", {"enum": ["x" * MAX_BYTES]}, "the limit is 65,536"),
        ("json_schema", {"const": "\ud800"}, "a lone surrogate"),
        ("json_schema", {"const": "\U00040000"}, None),
        ("json_schema", deep(70), "levels deep; simplify it"),
        ("json_schema", deep(100_000), "levels deep; simplify it"),
        (
            "json_schema",
            {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(1500)}},
            "too complex",
        ),
        ("regex", "", "non-empty"),
        ("regex", 5, "must be non-empty text"),
        ("regex", "a(b", "unclosed group"),
        ("regex", "a(?=b)", "look-around"),
        ("regex", "a{5,2}", "cannot be used"),
        ("regex", r"[^\s\S]", "no answer"),
        ("regex", "a{1,10001}", "the limit is 10,000"),
        ("regex", "a{" + "9" * 5000 + "}", "the limit is 10,000"),
        ("regex", "a\0", "NUL"),
        ("regex", "\ud800", "a lone surrogate"),
        ("regex", "x" * (MAX_BYTES + 1), "65,537 bytes"),
        ("grammar", " ", "non-empty"),
        ("grammar", "start: foo", 'unknown name: "foo"'),
        ("grammar", 'foo: "a"', "cannot be used"),
        ("grammar", 'start: "a', "cannot be used"),
        ("grammar", "start: x\nx: y\ny: x", "no answer"),
        ("grammar", 'start: A\nA: A "a"', "circular"),
        ("grammar", 'start: %json {"$ref": "http://127.0.0.1/x"}', "retriev"),
        ("grammar", "root ::= foo", "'foo' not found"),
        ("grammar", 'rule ::= "a"', "root"),
        ("grammar", 'root ::= "a', "Unexpected end"),
        ("grammar", 'root ::= "\\', "Invalid escape"),
        ("grammar", "root ::= " + "(" * 5000, "recursion"),
        ("grammar", 'root ::= "a"{99999}', "the limit is 10,000"),
        ("grammar", 'start: "a"~0..99999', "the limit is 10,000"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    grammars: Grammars, kind: Kind, value: Any, says: str | None
) -> None:
    with pytest.raises(BadRequest) as caught:
        constraint = grammars.compile(ConstraintSpec.of(kind, value, param="response_format"))
        for _ in range(3):  # a character that the vocabulary has no bytes for shows when its place comes
            row = np.zeros(49152, np.float32)
            constraint.mask(row)
            constraint.accept(int(row.argmax()))
    assert caught.value.param == "response_format"
    assert (says or "vocabulary cannot express") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 420


@pytest.mark.parametrize(
    "text",
    [
        'start: start "a" | "b"',
        'start: s\ns: s s | "a" | "aa" | ""',
        'root ::= root "a" | "b"',
        'root ::= item+\nitem ::= [a-z]+ "\\n"  # a comment\n',
        'root ::= "\\"" [^"]* "\\""',
    ],
)
def test_left_recursion_and_ambiguity_are_fine(grammars: Grammars, smol: Model, text: str) -> None:
    assert allowed(grammars.compile(ConstraintSpec.of("grammar", text)), smol.vocab.n_tokens)


BOMBS = r"""
import resource, sys, time
from pathlib import Path
import numpy as np
from mixcli.engine.constraint import Grammars
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.llama.model import Model
from mixcli.errors import BadRequest

vocab = Model.load_vocab(Path(sys.argv[1])).vocab
grammars = Grammars(vocab)
flat = lambda n, line: "\n".join(line.format(i, i + 1) for i in range(n))
def nested(depth, key, inner):
    for _ in range(depth):
        inner = {key: [inner]} if key == "anyOf" else {key: inner}
    return inner
chain = lambda n, depth, key: {"$ref": "#/$defs/d0", "$defs": {
    **{f"d{i}": nested(depth, key, {"$ref": f"#/$defs/d{i+1}"}) for i in range(n)}, f"d{n}": {"type": "null"}}}
bombs = [
    ("grammar", "start: r0\n" + flat(3500, "r{}: r{}") + '\nr3500: "a"'),
    ("grammar", "start: r0\n" + flat(2200, 'r{}: "x" (r{} | "b")*') + '\nr2200: "a"'),
    ("grammar", "start: T0\n" + flat(2200, 'T{}: "x" (T{} | "b")*') + '\nT2200: "a"'),
    ("grammar", "start: T0\n" + flat(40, "T{0}: T{1} T{1}") + '\nT40: "a"'),
    ("grammar", "start: r0\n" + flat(40, "r{0}: r{1} r{1}") + '\nr40: "a"'),
    ("grammar", "root ::= r0\n" + flat(2500, "r{} ::= r{}") + '\nr2500 ::= "a"'),
    ("grammar", "\n" * 60000 + 'root ::= "a"'),
    ("grammar", "start: " + "(" * 60000),
    ("grammar", 'start: ((("a"~0..9999)~0..9999)~0..9999)~0..9999'),
    ("grammar", "start: A\nA: /(.*a.{20}c)*/ & /(.*b.{21}d)*/ & /(.*c.{22}e)*/"),
    ("regex", "(" * 20000 + "a" + ")" * 20000),
    ("regex", "((.{0,9999}a){0,9999}b){0,9999}"),
    ("regex", "((a{0,9999}){0,9999}){0,9999}"),
    ("regex", ".*a.{300}b"),
    ("json_schema", chain(100, 28, "anyOf")),
    ("json_schema", chain(100, 55, "items")),
    ("json_schema", chain(1800, 0, "items")),
    ("json_schema", {"allOf": [{"anyOf": [{"properties": {f"p{i}": {"const": j}}} for j in range(3)]} for i in range(14)]}),
    ("json_schema", {"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": i} for i in range(1200)}}),
    ("json_schema", {"type": "integer", "multipleOf": 999999937}),
]
random = np.random.default_rng(0)
for kind, value in bombs:
    begin, outcome = time.process_time(), "ok"
    try:
        constraint = grammars.compile(ConstraintSpec.of(kind, value))
        for _ in range(40):
            if constraint.is_complete:
                break
            logits = random.normal(0, 1, vocab.n_tokens).astype(np.float32)
            constraint.mask(logits)
            if vocab.is_end(token := int(logits.argmax())):
                break
            constraint.accept(token)
    except BadRequest as error:
        outcome = "refused"
    print(kind, outcome, round(time.process_time() - begin, 3), flush=True)
grammars._compiled.clear()
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss would have the size of the process that started this one
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) >> 10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
print("peak", peak, "MiB")
"""


@pytest.mark.slow
def test_bombs_cost_little_and_kill_nobody(smol_path: Path) -> None:
    """In a process of its own: some of these overflowed the C stack. CPU seconds, so that a busy machine does not decide."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(smol_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, peak = done.stdout.splitlines()
    assert len(lines) == 20
    assert {line.split()[1] for line in lines} == {"ok", "refused"}
    assert max(float(line.split()[2]) for line in lines) < 10, done.stdout
    assert int(peak.split()[1]) < 600, peak
