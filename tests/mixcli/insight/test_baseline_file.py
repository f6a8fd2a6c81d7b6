"""Distributions that are kept small: divergence against all of the vocabulary, and files."""

import errno
import hashlib
import json
import resource
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mixcli.errors import IntegrityError, UsageError
from mixcli.insight.baseline_file import (
    ERROR,
    MOST,
    BaselineHead,
    BaselineReader,
    Distributions,
    Logs,
    joined,
    written,
)

HEAD = BaselineHead("big", 2000, 64, 2, hashlib.sha256(b"tokens").hexdigest())


def distributions(spread: float, noise: float, n: int = 200, seed: int = 0) -> tuple[Logs, Logs]:
    """Draw log probabilities over 2,000 tokens, and the same with noise on the logits, as a smaller type makes."""
    random = np.random.default_rng(seed)
    logits = random.standard_normal((n, 2000)) * spread
    found = []
    for one in (logits, logits + random.standard_normal(logits.shape) * noise):
        found.append((one - np.log(np.exp(one).sum(axis=1, keepdims=True))).astype(np.float32))
    return found[0], found[1]


@pytest.mark.parametrize(
    "spread", [1.0, 2.5, 6.0, 20.0]
)  # most tokens count, hundreds, some, hardly more than one
@pytest.mark.parametrize("noise", [0.01, 0.2, 1.0])
def test_divergence_is_that_of_the_whole_vocabulary(spread: float, noise: float) -> None:
    base, other = distributions(spread, noise, n=250)
    kept = Distributions.of(base, np.zeros(len(base), np.int64))
    exact = (np.exp(base.astype(float)) * (base.astype(float) - other)).sum(axis=1)
    found = kept.divergence(other)
    assert found.mean() == pytest.approx(exact.mean(), rel=0.01, abs=2e-7)
    if spread <= 2.5 and noise < 1:  # what few tokens, or far ones, decide is not normal
        assert np.std(found / exact - 1) < 1.3 * ERROR, "the error of a position is as the module says"
    assert (kept.counts + kept.drawn).max() <= MOST
    assert kept.agreement(base).all()
    assert kept.agreement(other).tolist() == (base.argmax(axis=1) == other.argmax(axis=1)).tolist()


def test_a_flat_distribution_takes_kilobytes_not_as_many_as_it_has_tokens() -> None:
    random = np.random.default_rng(0)
    logits = (random.standard_normal((4, 49152)) * 3).astype(np.float32)  # perplexity about 600
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kept = Distributions.of(logs, np.zeros(4, np.int64))
    assert kept.ids.nbytes + kept.codes.nbytes < 4 * 6000


def test_a_distribution_does_not_differ_from_itself() -> None:
    base, _ = distributions(6.0, 0.0)
    assert Distributions.of(base, np.zeros(len(base), np.int64)).divergence(base).max() < 1e-6


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    base, other = distributions(6.0, 0.2, n=40)
    targets = np.arange(40)
    whole = Distributions.of(base, targets)
    parts = joined([Distributions.of(base[:15], targets[:15]), Distributions.of(base[15:], targets[15:])])
    with written(tmp_path / "b", HEAD) as writer:
        writer.add(whole)
        writer.add(parts)
    reader = BaselineReader(tmp_path / "b")
    assert reader.head == HEAD
    for _ in range(2):
        found = reader.next()
        assert found.divergence(other).tolist() == whole.divergence(other).tolist()
        assert found.nll.tolist() == (-base[targets, targets]).tolist()
        part = found.part(slice(7, 90))
        assert part.divergence(other[7:]).tolist() == whole.divergence(other)[7:].tolist()
    with pytest.raises(IntegrityError, match="truncated"):
        reader.next()
    reader.close()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_a_byte_that_changed_is_noticed(tmp_path: Path, share: float) -> None:
    path = tmp_path / "b"
    base, _ = distributions(6.0, 0.2, n=20)
    with written(path, HEAD) as writer:
        writer.add(Distributions.of(base, np.arange(20)))
    raw = bytearray(path.read_bytes())
    begin = raw.index(b"\n") + 1
    raw[begin + int(share * (len(raw) - begin))] ^= 1
    path.write_bytes(raw)
    with (
        closing(BaselineReader(path)) as reader,
        pytest.raises(IntegrityError, match=r"is (damaged|truncated); remove it and rerun"),
    ):
        reader.next()


def test_huge_counts_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with written(path, HEAD):
        pass
    with path.open("ab") as file:
        file.write(b"\xff" * 100)
    with closing(BaselineReader(path)) as reader, pytest.raises(IntegrityError, match="is truncated"):
        reader.next()


def test_a_file_that_cannot_grow_is_named(tmp_path: Path) -> None:
    base, _ = distributions(6.0, 0.2, n=20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OSError, match=r".") as raised, written(tmp_path / "b", HEAD) as writer:
            writer.add(Distributions.of(base, np.arange(20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "b"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with written(tmp_path / "b", HEAD):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_of_other_tokens_is_refused(tmp_path: Path) -> None:
    sound = asdict(HEAD)
    for odd in ({}, {**sound, "label": 5}, {**sound, "n_vocab": None}, {**sound, "n_chunks": 2.5}):
        (tmp_path / "notes").write_text(f"{json.dumps(odd)}\n")
        with pytest.raises(IntegrityError, match="not a baseline"):
            BaselineReader(tmp_path / "notes")
    with pytest.raises(UsageError, match=r"small \(32,000 tokens\) and the baseline big \(2,000 tokens\)"):
        HEAD.check(replace(HEAD, label="small", n_vocab=32000))
