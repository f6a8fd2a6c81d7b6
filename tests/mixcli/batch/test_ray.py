"""mixcli batch --ray on a cluster of two nodes: the same file as without, also when a node is killed in the middle.

Two models: five hundred records are asked of a tiny one, whose labels mean nothing but whose token counts tell the records apart; some of the demo,
whose labels must be the same.
"""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.process import hosts
from quantize import Options, convert
from tests.conftest import Runner
from tests.support.checkpoints import write_checkpoint
from tests.support.ray_cluster import RayCluster

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"
)
ASK = ("--ctx", "512", "--keep-alive", "0", "--choice", "Paris,Rome,London,Berlin,Madrid")
DEMO = ("-m", "demo", *ASK)
COUNTRIES = ("France", "Italy", "England", "Germany", "Spain")


@pytest.fixture(scope="module")
def cluster(warm_home: Path) -> Iterator[RayCluster]:
    """One cluster for the tests of the file, because it takes long to start; the last of them kills a node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXCLI_HOME", str(warm_home))
        started = RayCluster()
    yield started
    started.close()


def texts(path: Path, n: int) -> Path:
    lines = (
        f"{'very ' * (number % 23)}well, the capital of {COUNTRIES[number % 5]} is called?"
        for number in range(n)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of two layers with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    convert(write_checkpoint(folder / "checkpoint"), folder / "tiny.gguf", Options(output_type="Q8_0"))
    return folder / "tiny.gguf"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def agree(found: Path, expected: Path) -> None:
    """Every record has its own answer, in the same order, with the same probabilities up to the noise of batches."""
    for ours, theirs in zip(rows(found), rows(expected), strict=True):
        assert (ours["id"], ours["usage"]) == (theirs["id"], theirs["usage"])
        assert ours["label_probs"] == pytest.approx(theirs["label_probs"], abs=0.02)


@needs_ray
@pytest.mark.model
@pytest.mark.slow
def test_the_demos_labels_are_the_same(warm: Runner, cluster: RayCluster, tmp_path: Path) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"The capital of {country} is called?\n" for country in COUNTRIES * 4))
    alone = warm("batch", str(source), *DEMO, timeout=300)
    assert (
        warm("batch", str(source), "-o", str(out), *DEMO, "--ray", cluster.address, timeout=300).returncode
        == 0
    )
    assert [row["result"] for row in rows(out)] == [
        json.loads(line)["result"] for line in alone.stdout.splitlines()
    ]


@needs_ray
@pytest.mark.model
@pytest.mark.slow
def test_parquet_is_read_by_ray_data(warm: Runner, cluster: RayCluster, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"id": ["a", "b", "c"], "country": ["France", "Italy", None]}), tmp_path / "c.parquet"
    )
    done = warm(
        "batch",
        str(tmp_path / "c.parquet"),
        *DEMO,
        "--ray",
        cluster.address,
        "--prompt",
        "The capital of {{ country }}?",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in found] == ["a", "b", "c"]
    assert all(line["result"] for line in found)


FAILING = """
import os, sys, threading
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray, ray.exceptions
from mixcli.batch.ray_backend import RayBackend, _RayWorker
from mixcli.errors import MixcliError, NotReachable

class Stub:
    def ask(self, body, key):
        if body["text"] == "bug":
            raise KeyError("a bug\\nwith lines")
        if body["text"] == "die":
            os._exit(1)
        return {"pid": os.getpid()}

ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
asker = object.__new__(RayBackend)
asker._ray, asker._lock = ray, threading.Lock()
asker._seats = [_RayWorker(ray.remote(Stub).remote(), f"node{n}") for n in range(2)]
for _ in range(3):
    try:
        asker({"text": "bug"}, "")
    except NotReachable:
        raise SystemExit("a bug was taken for a lost node")
    except MixcliError as error:
        print(error)
assert len(asker._seats) == 2, "nobody was lost"
asker({"text": "fine"}, "")
try:
    asker({"text": "die"}, "")
except NotReachable as error:
    print(error)
assert not asker._seats
"""


@needs_ray
@pytest.mark.slow
def test_a_bug_in_a_record_is_that_records_error_and_only_a_dead_engine_is_lost(cluster: RayCluster) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FAILING, cluster.address],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("failed with this record: KeyError: ") == 3  # Ray writes there too
    assert "all nodes of the cluster are lost" in done.stdout
    assert done.stderr.count("is lost (") == 2


@needs_ray
@pytest.mark.model
@pytest.mark.slow
def test_five_hundred_records_give_the_same_file_and_a_killed_node_costs_none(
    warm: Runner, cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    source = texts(tmp_path / "texts.txt", 500)
    alone, together, torn = (tmp_path / name for name in ("alone.jsonl", "together.jsonl", "torn.jsonl"))
    ask = ("-m", str(tiny), *ASK)
    assert warm("batch", str(source), "-o", str(alone), *ask, timeout=600).returncode == 0
    assert len({row["usage"]["prompt_tokens"] for row in rows(alone)}) >= 23
    done = warm("batch", str(source), "-o", str(together), *ask, "--ray", cluster.address, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "2 engines" in done.stderr
    agree(together, alone)

    arguments = ["batch", str(source), "-o", str(torn), *ask, "--ray", cluster.address]
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", *arguments], stderr=subprocess.PIPE, text=True
    )
    journal = torn.with_name("torn.jsonl.journal")
    deadline = time.monotonic() + 300
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    cluster.kill_a_node()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "is lost" in err
    agree(torn, alone)
    places = sorted(json.loads(line)["n"] for line in journal.read_text().splitlines()[1:])
    assert places == list(range(500)), "every record was kept once"
    deadline = time.monotonic() + 60
    while hosts():  # also the one whose node was killed leaves
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_cells_of_a_table_are_texts_as_those_of_json_lines() -> None:
    import datetime

    import numpy as np

    from mixcli.batch.ray_backend import _plain
    from mixcli.request.template import as_text

    cells = [
        True,
        None,
        1,
        1.5,
        "x",
        ["a", None],
        {"b": (1,)},
        np.array([1, 2]),
        np.float32(0.5),
        datetime.date(2026, 1, 2),
        b"y",
    ]
    assert [as_text(_plain(cell)) for cell in cells] == [
        "true",
        "",
        "1",
        "1.5",
        "x",
        '["a", null]',
        '{"b": [1]}',
        "[1, 2]",
        "0.5",
        "2026-01-02",
        "y",
    ]


@pytest.mark.slow
@needs_ray
def test_no_cluster_is_one_sentence(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli("batch", "-", *DEMO, "--ray", "127.0.0.1:9", stdin=b"x\n", timeout=180)
    assert done.returncode == 6, done.stderr
    assert "no Ray cluster at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_ray_is_imported_only_when_it_is_asked_for(tmp_path: Path, with_demo: Path) -> None:
    """Where it is missing, that is said; with a module of that name that cannot be imported nothing else changes."""
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')")
    source = texts(tmp_path / "texts.txt", 1)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['mixcli', *sys.argv[1:]]; from mixcli.cli import main; main()"
    run = [sys.executable, "-c", code, "batch", str(source), *DEMO]
    asked = subprocess.run([*run, "--ray", "auto"], capture_output=True, text=True, check=False)
    assert (asked.returncode, "pip install '.[ray]'" in asked.stderr) == (2, True)
    helped = subprocess.run([*run, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
