"""The experts that a text is given to: counts against the routers computed in numpy, each architecture of the family, the command."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.compute.chunks import cut
from mixcli.insight.compute.experts import observe
from mixcli.insight.compute.tokens import stream
from mixcli.insight.expert_use import ExpertReport
from mixcli.insight.orders import ExpertsOrder, TextReading, order_from_json
from mixcli.insight.pieces import TextPiece
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context
from mixcli.llama.expert_choices import ExpertChoices
from mixcli.llama.model import Model
from mixcli.llama.observers import NamedTensors
from profiles.placement import Placement
from tests.conftest import Runner
from tests.support.family import write_small
from tests.support.tiny_models import tiny_model

PLACEMENT = Placement(
    n_ctx=2048, n_batch=128, n_ubatch=128, n_seq_max=32, n_threads=1, n_threads_batch=1, repack=False
)
TEXT = TextPiece(
    "a.txt", "prose", "The tide came in twice a day, and the bell at the end of the pier rang. " * 8
)
OTHER = TextPiece("b.txt", "prose", "int main(void) { return 7 * (x[3] + y[5]); }\n" * 8)


def silent(*_: object) -> None:
    """Report nothing."""


def found(path: Path, against: tuple[TextPiece, ...] = ()) -> ExpertReport:
    order = order_from_json(
        ExpertsOrder(TextReading(path, LoadPlan(PLACEMENT), (TEXT,), 64), against).to_json()
    )
    assert isinstance(order, ExpertsOrder)
    choices = ExpertChoices()
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, kv_unified=False, tap=NamedTensors(choices)) as context,
    ):
        return observe(order, model, context, choices, silent, silent)


class RouterScores:
    """The TensorObserver of what a router computes, before anything is chosen."""

    def __init__(self) -> None:
        self.values: list[NDArray[np.generic]] = []

    def accepts(self, name: str) -> bool:
        return name == "ffn_moe_logits-1"

    def observe(self, name: str, values: NDArray[np.generic]) -> None:
        self.values.append(values)


def test_counts_are_those_of_the_highest_scores_of_each_chunk_alone(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", n_expert=8)
    scores = RouterScores()
    counts, near = np.zeros(8, int), 0
    with (
        Model.load(path, PLACEMENT) as model,
        Context(model, PLACEMENT, tap=NamedTensors(scores)) as context,
    ):
        chunks = cut(stream(model, [TEXT], silent), 64, model.vocab)
        for chunk in chunks:
            context.truncate(0, 0)
            batch = Batch(64)
            batch.extend(chunk, 0, 0, n_logits=64)
            context.decode(batch)
            rows = scores.values.pop().astype(np.float64)
            order = np.sort(rows, axis=1)
            near += int((order[:, -2] - order[:, -3] < 1e-3).sum())  # decided by the last digits
            counts += np.bincount(np.argsort(-rows, axis=1)[:, :2].ravel(), minlength=8)
    report = found(path)
    assert report.n_tokens == 64 * len(chunks)
    assert [sum(one.n_tokens for one in layer.experts) for layer in report.layers] == [
        report.n_tokens * 2
    ] * 2
    ours = np.array([one.n_tokens for one in report.layers[1].experts])
    assert np.abs(ours - counts).sum() <= 2 * near
    assert near < report.n_tokens / 4


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mistral4", [0, 1]),
        ("mistral4, gate and up in one", [0, 1]),
        ("deepseek2", [1, 2]),
        ("deepseek2, grouped and biased", [0, 1]),
    ],
)
def test_every_token_counts_in_every_layer_with_experts(tmp_path: Path, name: str, layers: list[int]) -> None:
    report = found(write_small(tmp_path / "m.gguf", name), (OTHER,))
    assert [layer.layer for layer in report.layers] == layers, "dense layers have none"
    assert (report.n_expert, report.n_expert_used) == (8, 2), "shared experts are not counted"
    for layer in report.layers:
        assert sum(one.n_tokens for one in layer.experts) == report.n_tokens * 2 > 0
        assert layer.drift
        assert layer.drift.by_chance
    assert report.n_tokens_against % 64 == 0 < report.n_tokens_against


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.gguf", n_expert=8)


def test_a_command_shows_tables_and_draws_a_picture(mixcli: Runner, model: Path, tmp_path: Path) -> None:
    for piece in (TEXT, OTHER):
        (tmp_path / piece.name).write_text(piece.text)
    picture = tmp_path / "p.svg"
    arguments = ("experts", str(model), "--ctx", "64", "--text", str(tmp_path / "a.txt"))
    done = mixcli(*arguments, "--against", str(tmp_path / "b.txt"), "--svg", str(picture))
    assert done.returncode == 0, done.stderr
    head, *rows = (line.split("\t") for line in done.stdout.split("\n\n")[0].splitlines())
    assert head == ["LAYER", "ENTROPY", "MOST USED", "LEAST USED", "TOGETHER", "DRIFT", "BY CHANCE"]
    assert [row[0] for row in rows] == ["0", "1"]
    assert "8 requests that decode together read " in done.stderr
    assert "KEPT EXPERTS\t" in done.stdout
    drawing = picture.read_text()
    assert drawing.count("<rect") >= 2 * 2 * 8 + 2
    assert "Drift, bits" in drawing
    done = mixcli(*arguments, "--layer", "1", "--chunks", "2", "--svg", str(picture))
    assert "read 128 tokens of a.txt" in done.stderr
    head, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert head == ["EXPERT", "TOKENS", "SHARE", "TOGETHER WITH", "FAVORITE TOKENS"]
    assert sum(int(row[1]) for row in rows) == 128 * 2
    assert "Drift" not in picture.read_text(), "an earlier picture is replaced"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{dense}"], "dense.gguf is a dense model: it has no experts"),
        (["{dense}", "--dry-run"], "dense.gguf is a dense model: it has no experts"),
        (["{model}", "--layer", "2"], "--layer 2 has no experts; choose a layer from 0 to 1"),
        (["{model}", "--text", "-", "--against", "-"], "--against and --text are the same file"),
        (["{model}", "--text", "{short}"], "less than one chunk of 512"),
        (["{model}", "--svg", "{short}"], "exists and is not a picture of mixcli experts"),
        (["{model}", "--svg", "-"], "a picture cannot be written to stdout"),
        (["{model}", "--svg", "x.svg", "--dry-run"], "--svg has no effect with --dry-run"),
    ],
)
def test_bad_input_is_one_sentence(
    mixcli: Runner, model: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("A short text.\n")
    names = {"model": str(model), "short": str(short), "dense": str(tmp_path / "dense.gguf")}
    if "{dense}" in arguments:
        tiny_model(tmp_path / "dense.gguf", n_expert=0)
    done = mixcli("experts", *(one.format(**names) for one in arguments))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert short.read_text() == "A short text.\n"
