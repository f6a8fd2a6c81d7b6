"""What nodes must have in common, and what is said of those that differ."""

import pytest

import mixcli
from mixcli.cluster.checked_nodes import agreed
from mixcli.cluster.cluster_model import NodeReport
from mixcli.errors import UsageError
from mixcli.store.weights import Weights, WeightsPart


def report(digest: str = "a", checksum: str = "", version: str = mixcli.__version__) -> NodeReport:
    parts = (WeightsPart("m-1.gguf", 5, "same"), WeightsPart("m-2.gguf", 7, digest))
    return NodeReport(version, Weights("m:Q4", checksum, parts))


def test_nodes_with_the_same_files_agree_also_where_only_one_knows_their_checksum() -> None:
    assert agreed({"10.0.0.1": report(), "10.0.0.2": report(checksum="c")}) == report()


def test_nodes_that_differ_are_named_with_the_file() -> None:
    with pytest.raises(UsageError) as failed:
        agreed({"10.0.0.1": report(), "10.0.0.2": report(), "10.0.0.3": report("b")})
    assert str(failed.value).startswith(
        "the nodes have different weights for m:Q4: compared with node 10.0.0.1, node 10.0.0.3: m-2.gguf has the same size but different contents; "
    )


def test_another_version_is_named() -> None:
    with pytest.raises(UsageError, match=r"node 10.0.0.2 has mixcli 0.0.1, and this machine"):
        agreed({"10.0.0.1": report(), "10.0.0.2": report(version="0.0.1")})


def test_a_node_that_joins_later_is_compared_too() -> None:
    report().check_same(report())
    with pytest.raises(UsageError, match=r"mixcli 0.0.1 instead of"):
        report().check_same(report(version="0.0.1"))
    with pytest.raises(
        UsageError,
        match=r"other weights of m:Q4 than the first nodes: m-2.gguf has the same size but different contents",
    ):
        report().check_same(report("b"))
