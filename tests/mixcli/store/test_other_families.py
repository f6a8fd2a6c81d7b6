"""Headers of other families: llama.cpp judges them in a process of its own, and what it does not survive becomes one sentence."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mixcli.errors import IntegrityError
from mixcli.store.header_trial import try_header
from mixcli.store.preflight import check_gguf, family_note
from profiles.placement import Placement
from quantize.source import Value, f32, i32s, text, u32
from quantize.sources.gguf_header import read_header
from tests.support import family_gguf

Changes = Mapping[str, Value | None]
# what no file is taken with: changes of a header, what is left out of it, and words of the sentence
REFUSED: dict[str, tuple[str, Changes, str, str]] = {
    "a name without its keys": ("qwen3moe", {"general.architecture": text("nonsense")}, "", "nonsense.block_count is missing"),
    "a name that is none": ("qwen3moe", {"general.architecture": text("a b\n")}, "", "general.architecture is"),
    "an image encoder": ("qwen3moe", {"general.architecture": text("clip")}, "", "writes no text"),
    "an adapter": ("qwen3moe", {"general.type": text("adapter")}, "", "is not a model"),
    "layers without end": ("qwen3moe", {"qwen3moe.block_count": u32(2**31 - 1)}, "", "block_count is 2147483647"),
    "experts without end": ("qwen3moe", {"qwen3moe.expert_count": u32(2**20)}, "", "expert_count is 1048576"),
    "a number that is none": ("gemma3", {"gemma3.final_logit_softcapping": f32(float("nan"))}, "", "final_logit_softcapping is NaN"),
    "a list without end": ("gemma3", {"gemma3.attention.sliding_window_pattern": i32s([1] * 5000)}, "", "sliding_window_pattern"),
    "heads that are no numbers": ("gemma3", {"gemma3.attention.head_count": text("4")}, "", "head_count is '4'"),
    "another tokenizer": ("gemma3", {"tokenizer.ggml.model": text("rwkv")}, "", "tokenizer of kind"),
    # what llama.cpp refuses
    "a name that it does not know": ("qwen3moe", family_gguf.renamed("qwen3moe", "nonsense"), "", "unknown model architecture: 'nonsense'"),
    "a tensor that is missing": ("qwen3moe", {}, "blk.1.ffn_up_exps.weight", "blk.1.ffn_up_exps.weight' not found"),
    "heads of another size": ("gpt-oss", {"gpt-oss.attention.head_count": u32(8)}, "", "has wrong shape"),
    "an unknown kind of words": ("qwen3moe", {"tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text("nobody")}, "", "merges"),
    "an encoder": ("gemma3", family_gguf.renamed("gemma3", "gemma-embedding"), "", "m.gguf has no KV cache: it is an encoder, which writes no text"),
    "a diffusion model": ("qwen3moe", family_gguf.renamed("qwen3moe", "rnd1"), "", "m.gguf is a diffusion model"),
    "a recurrent model": ("mamba", {}, "", "m.gguf is a recurrent model, whose state cannot be cut back to a prefix"),
    # what it does not survive
    "more experts used than there are": ("qwen3moe", {"qwen3moe.expert_used_count": u32(9)}, "", "crashed on its header (GGML_ASSERT("),
    "a window that no layer has": ("gemma3", {"gemma3.attention.sliding_window_pattern": u32(1)}, "", "crashed on its header (GGML_ASSERT("),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    family, changes, without, words = REFUSED[case]
    path = family_gguf.write(family, tmp_path / "m.gguf", changes=changes, without=without)
    with pytest.raises(IntegrityError) as caught:
        check_gguf(path)
    sentence = str(caught.value)
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.startswith(("m.gguf ", "llama.cpp cannot load m.gguf: "))


@pytest.mark.parametrize("family", family_gguf.FAMILIES)
def test_what_llama_cpp_reads_is_taken_and_told_of(family: str, tmp_path: Path) -> None:
    header = check_gguf(family_gguf.write(family, tmp_path / "m.gguf"))
    (note,) = family_note(header)
    assert f"a {family} model runs as llama.cpp computes it" in note


def test_a_placement_that_llama_cpp_refuses_is_a_sentence_too(tmp_path: Path) -> None:
    header = read_header(family_gguf.write("gemma3", tmp_path / "m.gguf"))
    no_buffer = Placement(n_ctx=256, tensor_overrides=(("blk", "NOWHERE"),))
    with pytest.raises(IntegrityError, match="no buffer type 'NOWHERE'"):
        try_header(header, "m.gguf", [no_buffer])


def test_gpus_that_are_not_here_have_stand_ins(tmp_path: Path) -> None:
    header = read_header(family_gguf.write("gpt-oss", tmp_path / "m.gguf"))
    halves = Placement(n_ctx=256, n_gpu_layers=99, tensor_split=(1.0, 1.0))
    (found,) = try_header(header, "m.gguf", [halves], ["CUDA0", "CUDA1"])
    assert found.has_stand_ins
    assert len(found.compute) == 3
    assert min(found.compute) > 0
