"""What is said where a cluster does not let this machine in."""

from mixcli.cluster.connection import _unreachable, cause


def test_versions_that_differ_are_both_named() -> None:
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        "This process on node 10.0.0.2 was started with:\n    Ray: 2.61.0\n    Python: 3.12.1\n"
    )
    said = str(_unreachable("10.0.0.1:6379", error))
    assert "differ in their versions" in said
    assert all(version in said for version in ("2.60.0", "3.11.7", "2.61.0", "3.12.1"))
    assert "\n" not in said


def test_an_address_without_a_cluster_is_one_line_with_a_next_step() -> None:
    said = str(_unreachable("auto", ConnectionError("Could not find any running Ray instance.\nmore")))
    assert said == (
        "no Ray cluster at auto (Could not find any running Ray instance.); start one with `ray start --head`"
    )
    assert cause(ValueError("")) == "ValueError: no reason given"
