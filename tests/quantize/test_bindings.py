"""The release of the bindings that structs are declared for: pinned, checked before the first call, and told in one sentence."""

import tomllib
from pathlib import Path

import llama_cpp
from llama_cpp import llama_cpp as installed

from quantize.bindings import VERSION, mismatch

ROOT = Path(__file__).resolve().parent.parent.parent


def test_what_is_installed_is_the_release_that_structs_are_declared_for() -> None:
    assert mismatch(installed, llama_cpp.__version__) is None


def test_another_release_is_named_with_the_command_that_installs_the_right_one() -> None:
    assert mismatch(installed, "0.3.40") == (
        f"llama-cpp-python 0.3.40 is installed, but mixcli needs {VERSION}; run `pip install llama-cpp-python=={VERSION}`"
    )


def test_a_struct_of_another_size_is_named_with_both_sizes() -> None:
    wrong = mismatch(installed, VERSION, {"llama_batch": 64})
    assert wrong is not None
    assert "llama_batch with 56 bytes instead of 64" in wrong


def test_a_struct_that_is_missing_counts_as_another_size() -> None:
    assert "no_such_struct with 0 bytes" in str(mismatch(installed, VERSION, {"no_such_struct": 8}))


def test_pyproject_pins_that_release() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert f"llama-cpp-python=={VERSION}" in dependencies
