"""Hostile checkpoint folders: `convert --dry-run` ends with a code of the table, whatever the JSON files say."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.budget import check_refusal, for_a_while, mixcli_here
from tests.fuzz.values import edited, edits, json_values
from tests.support.checkpoints import write_checkpoint, write_json, write_native

pytestmark = pytest.mark.slow

KEYS = [
    "architectures", "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype",
    "num_local_experts", "num_experts_per_tok", "sliding_window", "tie_word_embeddings", "quantization_config", "text_config", "hidden_act",
    "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "n_routed_experts", "first_k_dense_replace",
    "attention_bias", "mlp_bias", "max_window_layers", "layer_types", "partial_rotary_factor", "transformers_version", "_name_or_path", "auto_map",
]  # fmt: skip
NATIVE_KEYS = [
    "dim",
    "n_layers",
    "head_dim",
    "hidden_dim",
    "n_heads",
    "n_kv_heads",
    "norm_eps",
    "vocab_size",
    "rope_theta",
    "moe",
    "sliding_window",
    "max_seq_len",
    "quantization",
    "vision_encoder",
    "kv_lora_rank",
    "llama_4_scaling",
    "yarn",
    "tied_embeddings",
]
TOKENIZER_KEYS = [
    "tokenizer_class",
    "add_bos_token",
    "add_eos_token",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "chat_template",
    "added_tokens_decoder",
    "additional_special_tokens",
    "model_max_length",
    "legacy",
]
FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors.index.json",
    "params.json",
    "chat_template.json",
    "chat_template.jinja",
    "README.md",
    "tokenizer.json",
    "tekken.json",
]


@dataclass(frozen=True)
class Case:
    """A sound folder, keys of its files replaced (None in `absent` removes), one file replaced by any JSON, bytes changed."""

    native: bool
    config: dict[str, object]
    tokenizer: dict[str, object]
    absent: list[str]
    replaced: dict[str, object]
    broken: list[tuple[str, list[tuple[float, int]]]]


cases = st.builds(
    Case,
    st.booleans(),
    st.dictionaries(st.sampled_from([*KEYS, *NATIVE_KEYS]), json_values(), max_size=3),
    st.just({}) | st.dictionaries(st.sampled_from(TOKENIZER_KEYS), json_values(), max_size=2),
    st.just([]) | st.lists(st.sampled_from([*KEYS, *NATIVE_KEYS, *FILES, "tokenizer.model"]), max_size=2),
    st.just({}) | st.dictionaries(st.sampled_from(FILES), json_values(), max_size=1),
    st.just([])
    | st.lists(
        st.tuples(st.sampled_from([*FILES, "model.safetensors", "tokenizer.model"]), edits()), max_size=1
    ),
)


def test_checkpoint_configs(tmp_path: Path, home: Path) -> None:
    sources = {
        False: write_checkpoint(tmp_path / "hf", n_layer=1, n_embd=64, n_ff=64, n_expert=2, n_vocab=32000),
        True: write_native(tmp_path / "native", n_layer=1, n_embd=64, n_ff=64, n_expert=2),
    }
    folder = tmp_path / "case"
    n_fine = 0

    def check(case: Case) -> None:
        nonlocal n_fine
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sources[case.native], folder, copy_function=_link)
        for name, changes in (
            ("config.json", case.config),
            ("params.json", case.config),
            ("tokenizer_config.json", case.tokenizer),
        ):
            file = folder / name
            if changes and file.exists():
                found = json.loads(file.read_text())
                file.unlink()
                write_json(
                    file,
                    {key: value for key, value in {**found, **changes}.items() if key not in case.absent},
                )
        for name, value in case.replaced.items():
            (folder / name).unlink(missing_ok=True)
            write_json(folder / name, value)
        for name, changes in case.broken:
            file = folder / name
            if file.exists():
                data = file.read_bytes()
                file.unlink()
                file.write_bytes(edited(data, changes))
        for name in set(case.absent) & {*FILES, "tokenizer.model"}:
            (folder / name).unlink(missing_ok=True)
        answer = mixcli_here("convert", str(folder), "--dry-run", "-o", str(tmp_path / "out.gguf"))
        check_refusal(answer, (1, 2, 4, 5))
        n_fine += answer.code == 0

    for native in (False, True):
        check(Case(native, {}, {}, [], {}, []))
    assert n_fine == 2, "the folders that the cases are made of must be sound"
    for_a_while(cases, check)


def _link(source: str, target: str) -> None:
    """Large files are linked, since every change of a case writes a new file."""
    Path(target).hardlink_to(source)
