"""POST /v1/embeddings of a model that has a pooling type, with OpenAI's own package."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.ports import Port
from tests.support.small_hosts import EMBEDDER, served_small

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with served_small(tmp_path_factory, EMBEDDER) as port:
        yield port


def test_texts_and_tokens_have_embeddings_in_their_order(port: Port) -> None:
    texts = ["a cat", "a dog", "a cat"]
    import openai  # takes a second

    with openai.OpenAI(base_url=f"http://127.0.0.1:{port.number}/v1", api_key="-", max_retries=0) as api:
        found = api.embeddings.create(model="tiny", input=texts)  # the package asks for base64
    vectors = np.array([one.embedding for one in found.data])
    assert vectors.shape == (3, 512)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.allclose(vectors[0], vectors[2], atol=1e-4)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
    ids = [port.ask("POST", "/tokenize", {"prompt": text}).json["tokens"] for text in texts]
    assert found.usage.prompt_tokens == sum(map(len, ids))
    numbers = port.ask("POST", "/v1/embeddings", {"input": ids, "encoding_format": "float"}).json
    assert np.allclose([one["embedding"] for one in numbers["data"]], vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "dimensions": 8}, "dimensions"),
        ({"input": "word " * 3000}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({}, "input"),
        ({"input": [1 << 40]}, "input"),
    ],
    ids=["dimensions", "length", "format", "none", "token"],
)
def test_what_cannot_be_done_is_refused_by_name(port: Port, body: object, param: str) -> None:
    answer = port.ask("POST", "/v1/embeddings", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
