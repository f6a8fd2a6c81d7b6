"""The model of a request is found without its body being built, and as the host's parser would read it."""

import asyncio
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixcli.serve.model_field import NESTED, field_of, scan

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
keys = st.sampled_from(["model", "stream", 'mo"del', "\\model", "módel"]) | st.text(max_size=5)
texts = st.text(alphabet='"\\{}[],: model', max_size=40)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.dictionaries(keys, values | texts | st.lists(texts, max_size=3), max_size=8),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_it_reads_what_json_reads(body: dict[str, Any], is_ascii: bool, indent: int | None) -> None:
    raw = json.dumps(body, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    expected = body.get("model")
    for found in (scan(raw, "model"), asyncio.run(field_of(raw, "model"))):
        assert found is NESTED if isinstance(expected, dict | list) else found == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"model": "a", "model": "b"}', "a"),
        (b'\xef\xbb\xbf {"model":"a"}', "a"),
        (b'{"mod\\u0065l": "a"}', "a"),
        (b'{"messages": [{"content": "{\\"model\\": \\"no\\"}"}], "tools": [{"model": "no"}], "model": "a"}', "a"),
        (b'{"messages": "never ends, "model": "a"}', None),
        (b'{"messages": [{"a": 1}, "model": "a"}', None),
        (b'["model", "a"]', None),
        (b'{"model"', None),
        (b'{"model": nonsense}', None),
        (b"", None),
        (b"\xff\xfe\x00", None),
        (b'{"model": {"id": "a"}}', NESTED),
    ],
)  # fmt: skip
def test_it_is_a_field_of_the_outermost_object(raw: bytes, expected: object) -> None:
    assert scan(raw, "model") == expected
    assert (
        asyncio.run(field_of(raw, "model")) == expected or expected == "a"
    )  # of what is not JSON the scan may find it


@pytest.mark.parametrize("piece", ['x" ', "word ", '\\"', "\\n{[\\\\"])
def test_megabytes_before_it_cost_no_memory(piece: str) -> None:
    text = json.dumps(piece * (2_000_000 // len(piece)))
    raw = f'{{"messages": [{{"role": "user", "content": {text}}}], "model": "a"}}'.encode()
    tracemalloc.start()
    try:
        assert asyncio.run(field_of(raw, "model")) == "a"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000
