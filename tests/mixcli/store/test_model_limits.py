"""Numbers of a header that llama.cpp takes and that end ggml, or with which a model computes nothing that means anything."""

import os
import sys
from pathlib import Path

import pytest

from mixcli.client.process import _cause
from mixcli.client.spawn import Child
from mixcli.errors import IntegrityError
from mixcli.host.protocol.host_name import HostName
from mixcli.store.preflight import check_gguf
from mixcli.system import python_child
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.source import Value, f32, flag, text, u32
from tests.mixcli.store.test_preflight import N_EMBD, N_FF, changed, llama_cpp_works

NAN, INFINITE = float("nan"), float("inf")


def mixture(path: Path, n_expert: int, n_used: int) -> Path:
    """Write the one-layer mixture with so many experts."""
    shapes = {
        "blk.0.ffn_gate_inp.weight": (n_expert, N_EMBD),
        "blk.0.ffn_gate_exps.weight": (n_expert, N_FF, N_EMBD),
        "blk.0.ffn_up_exps.weight": (n_expert, N_FF, N_EMBD),
        "blk.0.ffn_down_exps.weight": (n_expert, N_EMBD, N_FF),
    }
    counts = {"llama.expert_count": u32(n_expert), "llama.expert_used_count": u32(n_used)}
    return changed(path, counts, {name: (Type.F32, shape) for name, shape in shapes.items()})


@pytest.mark.parametrize("n_used", [1, 8, 256])
def test_many_experts_that_llama_cpp_computes(tmp_path: Path, n_used: int) -> None:
    path = mixture(tmp_path / "m.gguf", 256, n_used)
    check_gguf(path)
    assert llama_cpp_works(path)


@pytest.mark.parametrize(("n_expert", "n_used"), [(512, 512), (1024, 1024), (1024, 600)])
def test_more_experts_than_the_graph_has_room_for(tmp_path: Path, n_expert: int, n_used: int) -> None:
    """ggml ends the process then, with the path of the machine on which it was built."""
    path = mixture(tmp_path / "m.gguf", n_expert, n_used)
    with pytest.raises(IntegrityError, match=f"expert_used_count is {n_used}; llama.cpp computes at most 4"):
        check_gguf(path)
    assert not llama_cpp_works(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("rope.freq_base", f32(value)) for value in (0.0, -1.0, 1e-30, 1e30, NAN, INFINITE)),
        *(("attention.layer_norm_rms_epsilon", f32(value)) for value in (0.0, -1e-5, 1.0, NAN, INFINITE)),
        *(("rope.scaling.factor", f32(value)) for value in (1e-30, -1.0, 1e30, NAN)),
        *(("rope.scale_linear", f32(value)) for value in (1e-30, -1.0, NAN)),
        *(("rope.scaling.attn_factor", f32(value)) for value in (0.0, -1.0, 1e30, NAN)),
        *(("expert_weights_scale", f32(value)) for value in (-1.0, 1e30, NAN)),
        ("rope.scaling.yarn_beta_fast", f32(INFINITE)),
        ("attention.temperature_scale", f32(1e30)),
        ("attention.causal", flag(False)),
    ],
)
def test_numbers_that_no_model_has_are_refused_by_name(tmp_path: Path, key: str, value: Value) -> None:
    with pytest.raises(IntegrityError, match=rf"llama\.{key} is ") as caught:
        check_gguf(changed(tmp_path / "m.gguf", {f"llama.{key}": value}))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.freq_base", 1e6),
        ("rope.freq_base", 1e9),
        ("rope.scaling.factor", 0.0),
        ("rope.scaling.factor", 16.0),
        ("rope.scaling.attn_factor", 1.0),
        ("expert_weights_scale", 0.0),
        ("expert_weights_scale", 2.5),
        ("attention.layer_norm_rms_epsilon", 1e-6),
    ],
)
def test_numbers_that_models_have_pass(tmp_path: Path, key: str, value: float) -> None:
    check_gguf(
        changed(tmp_path / "m.gguf", {"llama.rope.scaling.type": text("linear"), f"llama.{key}": f32(value)})
    )


ASSERTION = "/tmp/build/vendor/llama.cpp/ggml/src/ggml.c:1814: GGML_ASSERT(obj_new) failed"


def test_an_assertion_is_told_without_the_path_at_which_it_was_built(home: Path, tmp_path: Path) -> None:
    code = f"import os, sys; sys.stderr.write({ASSERTION!r}); sys.stderr.flush(); os.abort()"
    done = python_child.run("-c", code, seconds=60)
    assert (done.code, done.last_words) == (-6, "ggml.c:1814: GGML_ASSERT(obj_new) failed")
    (tmp_path / "m.gguf").touch()
    name = HostName(tmp_path / "m.gguf", "m", "")
    name.log.parent.mkdir(parents=True, exist_ok=True)
    name.log.write_text(f"loading\n{ASSERTION}\n[thread 7]\n")
    process = Child(
        os.posix_spawn(sys.executable, [sys.executable, "-c", "import os; os.abort()"], os.environ)
    )
    assert _cause(name, process) == "llama.cpp stopped at GGML_ASSERT(obj_new) failed"
