"""What the child computes, against the same by hand: importance, likelihood, divergence; resuming; conversations."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.errors import IntegrityError, UsageError
from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.chunks import cut
from mixcli.insight.compute.importance import InputSquares, sum_up, tap_of
from mixcli.insight.compute.perplexity import evaluate
from mixcli.insight.compute.tokens import sections, stream
from mixcli.insight.imatrix_file import read_partial
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import ImatrixOrder, PerplexityOrder, TextReading, order_from_json
from mixcli.insight.pieces import HELD_OUT, TextPiece, shipped
from mixcli.insight.statistics import TextScores
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.llama.observers import Matmuls, NamedTensors, Taps
from mixcli.prompts.content_tokenizer import ContentTokenizer
from profiles.placement import Placement
from quantize.source import f32, text
from tests.support.tiny_models import tiny_model

PLACEMENT = Placement(
    n_ctx=2048, n_batch=512, n_ubatch=512, n_seq_max=4, n_threads=1, n_threads_batch=1, repack=False
)
PROSE = next(piece for piece in shipped(HELD_OUT) if piece.name == "french")
TEXT = TextPiece("notes.txt", "prose", PROSE.text * 2)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "mixture.gguf")


def silent(*_: object) -> None:
    """Report nothing."""


def reading(path: Path, **changes: object) -> TextReading:
    return replace(TextReading(path, LoadPlan(PLACEMENT), (TEXT,), 512, 6), **changes)


def computed(
    path: Path, order: ImatrixOrder, report: Callable[[float, float, str], None] = silent
) -> tuple[ImportanceSums, dict[str, object]]:
    sums = ImportanceSums()
    tap = Matmuls(InputSquares(sums, with_output=order.with_output))
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, kv_unified=False, tap=tap) as context,
    ):
        return sums, sum_up(order, model, context, sums, report, silent)


class Seen:
    """The tensors in front of the experts of the first layer."""

    def __init__(self) -> None:
        self.values: dict[str, list[NDArray[np.generic]]] = {}

    def accepts(self, name: str) -> bool:
        return name in ("ffn_norm-0", "ffn_moe_topk-0")

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        self.values.setdefault(name, []).append(values)


def test_sums_are_those_of_the_tensors_in_front_of_the_weights(mixture: Path, tmp_path: Path) -> None:
    order = ImatrixOrder(reading(mixture, n_chunks=1), tmp_path / "part", "run", with_output=True)
    sums, result = computed(mixture, order)
    assert result == {"n_chunks": 1, "n_tokens": 512}
    seen = Seen()
    with (
        Model.load(mixture, PLACEMENT) as model,
        Context(model, PLACEMENT, tap=NamedTensors(seen)) as context,
    ):
        (ids,) = cut(stream(model, [TEXT], silent), 512, model.vocab)[:1]
        batch = Batch(512)
        batch.extend(ids, 0, 0, n_logits=512)
        context.decode(batch)
    assert ids[0] == 1
    inputs = seen.values["ffn_norm-0"][-1].astype(np.float64)
    chosen = seen.values["ffn_moe_topk-0"][0]
    gate = sums.entries["blk.0.ffn_gate_exps.weight"]
    for expert in range(4):
        rows = inputs[(chosen == expert).any(axis=1)]
        assert gate.counts[expert] == len(rows)
        np.testing.assert_allclose(gate.sums[expert], (rows**2).sum(axis=0), rtol=1e-3)
    np.testing.assert_allclose(
        sums.entries["blk.0.ffn_gate_inp.weight"].sums[0], (inputs**2).sum(axis=0), rtol=1e-3
    )
    layer = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate_inp",
        "ffn_gate_exps",
        "ffn_up_exps",
        "ffn_down_exps",
    )
    assert set(sums.entries) == {f"blk.{i}.{name}.weight" for i in range(2) for name in layer} | {
        "output.weight"
    }


@pytest.mark.parametrize("with_output", [False, True])
def test_the_output_matrix_is_computed_only_where_its_inputs_are_asked_for(
    mixture: Path, tmp_path: Path, *, with_output: bool
) -> None:
    class Logits:
        n = 0

        def accepts(self, name: str) -> bool:
            return name == "result_output"

        def observe(self, name: str, values: NDArray[np.generic]) -> None:
            self.n += len(values)

    order = ImatrixOrder(reading(mixture, n_chunks=1), tmp_path / "part", "run", with_output=with_output)
    sums, seen = ImportanceSums(), Logits()
    tap = Taps(tap_of(order, sums), NamedTensors(seen))
    with (
        Model.load(mixture, PLACEMENT) as model,
        Context(model, PLACEMENT, kv_unified=False, tap=tap) as context,
    ):
        sum_up(order, model, context, sums, silent, silent)
    assert seen.n == 512 * with_output
    whole, _ = computed(mixture, replace(order, partial=tmp_path / "whole", with_output=True))
    assert set(whole.entries) - set(sums.entries) == (set() if with_output else {"output.weight"})
    for name, entry in sums.entries.items():
        assert entry.sums.tobytes() == whole.entries[name].sums.tobytes()


def test_a_killed_run_resumes_and_ends_in_the_same_file(mixture: Path, tmp_path: Path) -> None:
    whole, killed = (
        ImatrixOrder(reading(mixture), tmp_path / name, "run", save_interval=0)
        for name in ("whole", "killed")
    )
    computed(mixture, whole)
    at = []

    def kill(done: float, total: float, _: str) -> None:
        at.append((done, total))
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        computed(mixture, killed, kill)
    assert at == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6)]
    partial = read_partial(killed.partial, "run")
    assert partial
    assert partial.n_done == 4
    at.clear()
    computed(mixture, killed, lambda done, total, _: at.append((done, total)))
    assert at == [(5, 6), (6, 6)]
    assert killed.partial.read_bytes() == whole.partial.read_bytes()


@pytest.mark.slow
def test_scores_are_those_of_each_chunk_alone(mixture: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other.gguf", seed=8)
    pieces = (
        replace(TEXT, text=TEXT.text[:1700]),
        replace(TEXT, name="again", kind="code", text=TEXT.text[700:1900]),
        TextPiece("short", "prose", "Oui."),
    )
    logs: dict[Path, list[NDArray[np.float64]]] = {mixture: [], other: []}
    targets: list[NDArray[np.int64]] = []
    for path, found_logs in logs.items():
        with Model.load(path, PLACEMENT) as model, Context(model, PLACEMENT) as context:
            chunks = [
                chunk
                for section in sections(model, pieces, silent)
                for chunk in cut(section.tokens, 512, model.vocab)
            ]
            for ids in chunks:
                batch = Batch(512)
                batch.extend(ids, 0, 0, n_logits=512)
                context.truncate(0, 0)
                context.decode(batch)
                rows = np.stack([context.logits(i) for i in range(256, 511)]).astype(np.float64)
                found_logs.append(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))
                targets.append(np.array(ids[257:512]))
    notes: list[str] = []

    def scores(path: Path, **where: Path) -> list[TextScores]:
        order = PerplexityOrder(reading(path, pieces=pieces, n_chunks=None), **where)
        order = order_from_json(order.to_json())  # type: ignore[assignment]
        with Model.load(path, PLACEMENT) as model, Context(model, PLACEMENT, kv_unified=False) as context:
            found = evaluate(order, model, context, silent, notes.append)["rows"]
        return [TextScores.from_data(row) for row in found]  # type: ignore[attr-defined]

    kept = tmp_path / "baseline"
    assert scores(mixture, write_baseline=kept) == []
    rows = scores(other, read_baseline=kept)
    assert notes[0] == "skipped short (4 tokens): less than one chunk of 512"
    assert [row.name for row in rows] == ["all", "notes.txt", "again"]
    n = len(logs[other])
    nll = np.concatenate([-one[np.arange(255), to] for one, to in zip(logs[other], targets, strict=False)])
    divergence = np.concatenate(
        [(np.exp(p) * (p - q)).sum(axis=1) for p, q in zip(logs[mixture], logs[other], strict=True)]
    )
    same = [p.argmax(axis=1) == q.argmax(axis=1) for p, q in zip(logs[mixture], logs[other], strict=True)]
    whole = rows[0]
    assert whole.kl_mean
    assert whole.agreement
    assert whole.n_tokens == 255 * n
    assert whole.perplexity.value == pytest.approx(np.exp(nll.mean()), rel=1e-3)
    assert whole.kl_mean.value == pytest.approx(divergence.mean(), rel=5e-3)
    assert whole.agreement.value == pytest.approx(np.mean(same), abs=2e-3)


def test_a_text_of_less_than_a_chunk_is_refused(mixture: Path, tmp_path: Path) -> None:
    short = reading(mixture, pieces=(TextPiece("short", "prose", "Oui."),))
    with pytest.raises(UsageError, match="4 tokens long, less than one chunk of 512; use a longer text"):
        computed(mixture, ImatrixOrder(short, tmp_path / "part", "run"))


def test_conversations_are_in_the_format_of_the_model(tmp_path: Path) -> None:
    chat = TextPiece("chat", "chat", turns=(("user", "Why?"), ("assistant", "Because.")))
    notes: list[str] = []
    with Model.load_vocab(tiny_model(tmp_path / "base.gguf")) as base:
        plain = stream(base, [chat], notes.append)
        assert b"".join(map(base.vocab.piece, plain)).decode() == "Why?\n\nBecause.\n"
    assert notes == ["base.gguf has no chat template, so conversations are read as plain text"]
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    path = tiny_model(tmp_path / "chat.gguf", changes={"tokenizer.chat_template": text(template)})
    with Model.load_vocab(path) as model:
        ids = stream(model, [chat], notes.append)
        assert "<user>Why?<assistant>Because." in b"".join(map(model.vocab.piece, ids)).decode()
        assert ids[-1] == model.vocab.eos
    assert len(notes) == 1


def test_what_is_not_finite_reaches_neither_a_result_nor_the_cache(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", changes={"llama.rope.freq_base": f32(0.0)})
    kept = tmp_path / "baseline"
    with Model.load(path, PLACEMENT) as model, Context(model, PLACEMENT, kv_unified=False) as context:
        for order in (PerplexityOrder(reading(path)), PerplexityOrder(reading(path), write_baseline=kept)):
            with pytest.raises(IntegrityError, match=r"m\.gguf computes values that are not finite"):
                evaluate(order, model, context, silent, silent)
    assert not kept.exists()


@pytest.mark.parametrize("joined_by", [" ", ""])
def test_the_first_chunks_of_a_long_text_need_no_more_of_it(
    mixture: Path, monkeypatch: pytest.MonkeyPatch, joined_by: str
) -> None:
    """Ten MB in one line took seconds, for one chunk of 512 tokens; also where no blank says where to cut."""
    line = joined_by.join(PROSE.text.split()) * 20
    with Model.load(mixture, PLACEMENT) as model:
        pieces = (TextPiece("a", "prose", line),)
        whole = stream(model, pieces, silent)
        seen: list[int] = []
        encode = ContentTokenizer.encode

        def counting(self: ContentTokenizer, text: str) -> list[int]:
            seen.append(len(text))
            return encode(self, text)

        monkeypatch.setattr(ContentTokenizer, "encode", counting)
        few = stream(model, pieces, silent, 512)
        assert few == whole[:512]
        assert sum(seen) < len(line) / 2
        assert sections(model, pieces, silent, 512)[0].tokens == few
        assert stream(model, pieces, silent, len(whole) + 9) == whole
