"""The face of llama.cpp: loading, its errors in words, its silence on the terminal, overrides and taps."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.errors import IntegrityError, MixcliError, UsageError
from mixcli.llama import ggml
from mixcli.llama.batch import Batch
from mixcli.llama.context import ComputeError, Context
from mixcli.llama.log import LEVEL_CONTINUED, LEVEL_DEBUG, LEVEL_ERROR, LEVEL_INFO, Log
from mixcli.llama.model import LoadCancelled, Model
from mixcli.llama.native import LOG
from tests.support.models import PLACEMENT


def test_progress_is_reported_and_can_cancel(smol_path: Path) -> None:
    seen: list[float] = []
    with Model.load(smol_path, PLACEMENT, lambda done: seen.append(done) or True):  # type: ignore[func-returns-value]
        pass
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == 1.0
    with pytest.raises(LoadCancelled):
        Model.load(smol_path, PLACEMENT, lambda done: done < 0.5)


def test_an_error_in_the_progress_callback_comes_out(smol_path: Path) -> None:
    def fail(_: float) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Model.load(smol_path, PLACEMENT, fail)


def test_a_failed_load_says_why_and_nothing_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"no GGUF at all")
    with pytest.raises(IntegrityError, match=r"cannot load no\.gguf: .*magic"):
        Model.load(path, PLACEMENT)
    assert LOG.lines()
    assert capfd.readouterr() == ("", "")


def test_a_whole_run_prints_nothing(smol_path: Path) -> None:
    code = (
        "from pathlib import Path; from mixcli.llama.model import Model; from mixcli.llama.batch import Batch; from mixcli.llama.context import Context; "
        "from profiles.placement import Placement; p = Placement(n_ctx=256, n_threads=1, n_threads_batch=1); "
        f"m = Model.load(Path({str(smol_path)!r}), p); c = Context(m, p); b = Batch(4); b.extend([1, 2], 0, 0, True); "
        "c.decode(b)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_a_context_without_room_does_not_fit(smol_path: Path) -> None:
    code = (
        "import resource; from pathlib import Path; from dataclasses import replace; "
        "from mixcli.llama.model import Model; from mixcli.llama.context import Context; from mixcli.errors import DoesNotFit; "
        "from profiles.placement import Placement; "
        f"p = Placement(n_threads=1, n_threads_batch=1); m = Model.load(Path({str(smol_path)!r}), p); "
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "try:\n    Context(m, replace(p, n_ctx=131072))\n"
        "except DoesNotFit as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert re.match(
        r"not enough memory for a context of 131,072 tokens: .*allocate.*; try a smaller --ctx", run.stdout
    )
    assert run.stderr == ""


def test_a_context_that_llama_cpp_refuses_says_why(smol: Model) -> None:
    with pytest.raises(MixcliError, match=r"1,024 tokens: .*flash"):
        Context(smol, replace(PLACEMENT, type_v="q8_0", flash_attn=False))


@pytest.mark.parametrize("field", ["type_k", "type_v"])
def test_an_unknown_kv_type_lists_the_known_ones(smol: Model, field: str) -> None:
    with pytest.raises(UsageError, match="q8_0"):
        Context(smol, replace(PLACEMENT, **{field: "q3_x"}))  # type: ignore[arg-type]


def test_tensor_overrides_are_applied_or_refused(smol_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no buffer type 'CUDA7'.*CPU"):
        Model.load(smol_path, replace(PLACEMENT, tensor_overrides=(("ffn", "CUDA7"),)))
    with pytest.raises(UsageError, match="regular expression"):
        Model.load(smol_path, replace(PLACEMENT, tensor_overrides=(("ffn(", "CPU"),)))
    overrides = ((r"blk\.[0-4]\.ffn_.*", "CPU"), (r"blk\.5\.attn_q.*", "CPU"))
    Model.load(smol_path, replace(PLACEMENT, tensor_overrides=overrides)).close()


@pytest.mark.parametrize("mode", ["none", "mmap", "mlock"])
def test_load_modes(smol_path: Path, mode: str) -> None:
    with (
        Model.load(smol_path, replace(PLACEMENT, load_mode=mode)) as model,
        Context(model, PLACEMENT) as context,
    ):
        batch = Batch(4)
        batch.extend([1, 2], 0, 0, n_logits=1)
        assert context.decode(batch)


def test_what_a_model_says_about_itself(smol: Model) -> None:
    assert (smol.n_layer, smol.n_ctx_train) == (30, 8192)
    assert smol.metadata("general.architecture") == "llama"
    assert smol.metadata("tokenizer.chat_template") == smol.chat_template
    assert smol.metadata("no.such.key") is None
    assert smol.n_bytes == pytest.approx(96_000_000, rel=0.1)


def test_devices_have_names_and_memory() -> None:
    devices = ggml.devices()
    assert any(device.kind == "cpu" and device.bytes_total > 1 << 28 for device in devices)
    assert "CPU" in ggml.buffer_types()


def test_no_logits_where_none_were_asked_for(smol: Model) -> None:
    with Context(smol, PLACEMENT) as context:
        batch = Batch(4)
        batch.extend([1, 2], 0, 0, n_logits=1)
        context.decode(batch)
        with pytest.raises(ComputeError, match="position 0"):
            context.logits(0)
        assert context.logits(1).shape == (49152,)


def test_a_batch_that_fits_nowhere_is_an_error(smol: Model) -> None:
    with Context(smol, replace(PLACEMENT, n_ctx=256)) as context:
        batch = Batch(512)
        batch.extend([5] * 250, 0, 0, n_logits=1)
        assert context.decode(batch)
        batch.clear()
        batch.extend([5] * 10, 250, 0, n_logits=1)
        with pytest.raises(ComputeError, match="KV cache has no room"):
            context.decode(batch)
        assert context.n_cached(0) == 250
        context.truncate(0, 100)
        assert context.n_cached(0) == 100


def test_a_context_closed_twice_and_after_its_model(smol_path: Path) -> None:
    model = Model.load(smol_path, PLACEMENT)
    context = Context(model, PLACEMENT)
    context.close()
    context.close()
    model.close()


def test_the_log_joins_continued_lines_and_names_the_first_error() -> None:
    log = Log()
    for level, text in (
        (LEVEL_INFO, b"loading\n"),
        (LEVEL_ERROR, b"f: error loading model: bad "),
        (LEVEL_CONTINUED, b"thing.\n"),
        (LEVEL_DEBUG, b"a detail "),
        (LEVEL_CONTINUED, b"and more of it\n"),
        (LEVEL_ERROR, b"g: after\n"),
    ):
        log(level, text, None)
    assert log.lines() == ["loading", "f: error loading model: bad thing.", "g: after"]
    assert log.why() == "bad thing"
    log.clear()
    assert log.why() == ""


def test_vocabulary_words(vocab_model: Callable[..., Model]) -> None:
    vocab = vocab_model("v3").vocab
    assert (vocab.n_tokens, vocab.bos, vocab.eos, vocab.adds_bos, vocab.adds_space_prefix) == (
        32768,
        1,
        2,
        True,
        True,
    )
    assert vocab.is_end(2)
    assert not vocab.is_end(5)
    assert vocab.specials["[INST]"] == 3
    assert vocab.attributes(3) & vocab.CONTROL
    hello = vocab.tokenize("Hello")
    assert [vocab.text(token) for token in hello] == ["▁Hello"]
    assert b"".join(map(vocab.piece, hello)) == b" Hello"
