"""Scores of texts: values against numpy, standard errors against a simulation."""

import numpy as np
import pytest

from mixcli.insight.statistics import ChunkScores, TextScores, quantile, rows_of


def chunk(name: str, kind: str, seed: int, n: int = 50) -> ChunkScores:
    random = np.random.default_rng(seed)
    nll = random.exponential(2, n) + random.standard_normal()
    return ChunkScores(name, kind, nll, nll * 0.9, random.exponential(0.1, n), random.random(n) < 0.9)  # type: ignore[arg-type]


def test_rows_are_all_texts_kinds_of_several_texts_and_each_text() -> None:
    chunks = [
        chunk("english", "prose", 1),
        chunk("french", "prose", 2),
        chunk("code", "code", 3),
        chunk("french", "prose", 4),
    ]
    rows = rows_of(chunks)
    assert [(row.name, row.n_chunks, row.n_tokens) for row in rows] == [
        ("all", 4, 200), ("prose", 3, 150), ("english", 1, 50), ("french", 2, 100), ("code", 1, 50),
    ]  # fmt: skip
    nll, divergence = (
        np.concatenate([getattr(one, name) for one in chunks]) for name in ("nll", "divergence")
    )
    assert rows[0].perplexity.value == pytest.approx(np.exp(nll.mean()))
    assert rows[0].kl_p99
    assert rows[0].kl_p99.value == pytest.approx(np.quantile(divergence, 0.99))
    assert rows[2].perplexity.error is None, "one chunk has no spread"
    assert [TextScores.from_data(row.to_data()) for row in rows] == rows
    alone = rows_of([ChunkScores("notes.txt", "prose", nll)])
    assert [row.name for row in alone] == ["notes.txt"]
    assert alone[0].kl_mean is None


def test_standard_errors_are_those_of_texts_not_of_tokens() -> None:
    """Tokens of one text are alike: of many draws of 40 texts, the scores spread as one draw says that they do."""
    drawn = [
        rows_of([chunk("t", "prose", 1000 * draw + i) for i in range(40)])[0].perplexity for draw in range(60)
    ]
    spread = np.std([one.value for one in drawn], ddof=1)
    assert np.mean([one.error or 0 for one in drawn]) == pytest.approx(spread, rel=0.3)
    tokens = np.concatenate([chunk("t", "prose", i).nll for i in range(40)])
    of_tokens = np.exp(tokens.mean()) * tokens.std() / np.sqrt(len(tokens))
    assert spread > 2 * of_tokens


def test_errors_of_quantiles_shrink_with_the_number_of_texts() -> None:
    few, many = (
        quantile([np.random.default_rng(i).exponential(1, 60) for i in range(n)], 0.9) for n in (10, 160)
    )
    assert few.value == pytest.approx(np.log(10), rel=0.15)
    assert few.error
    assert many.error
    assert 0.15 < many.error / few.error < 0.45
