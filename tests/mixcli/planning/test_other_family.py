"""Plans of other families against what llama.cpp then takes: in host memory, and with RPC workers as GPUs."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.planning.load_options import LoadOptions
from mixcli.planning.other_family import with_measured_shape
from mixcli.planning.report import Subject
from mixcli.planning.verify_plan import measured
from mixcli.store.headers import shape_of
from profiles.ledger import expectation
from profiles.machine import Gpu, Machine
from profiles.planner import Plan, plan
from profiles.request import PlanRequest
from quantize.sources.gguf_header import read_header
from tests.support import family_gguf

MIB = 1 << 20
WITHIN = 0.02
HOST = Machine(8 << 30, 1)


def planned(
    path: Path, machine: Machine, request: PlanRequest, workers: tuple[str, ...] = ()
) -> tuple[Subject, Plan]:
    header = read_header(path)
    bare = Subject(path.name, shape_of(header), path, header=header)
    subject = with_measured_shape(bare, machine, LoadOptions(request, workers=workers))
    return subject, plan(subject.shape, machine, request)


def check_against_a_load(subject: Subject, found: Plan, workers: tuple[str, ...] = ()) -> None:
    placement = replace(found.placement, workers=workers, load_mode="none", repack=False)
    taken = measured(subject, placement, expectation(found.ledger))
    for one in taken.comparisons:
        for part, expected, real in one.parts:
            assert abs(real - expected) <= max(WITHIN * expected, 0.02 * MIB), (one.device, part)
    assert not taken.notes


@pytest.mark.parametrize("family", family_gguf.FAMILIES)
def test_a_plan_in_host_memory_is_what_is_taken(family: str, tmp_path: Path) -> None:
    path = family_gguf.write(family, tmp_path / "tiny.gguf")
    subject, found = planned(path, HOST, PlanRequest(n_ctx=4096, kv="q8_0"))
    check_against_a_load(subject, found)


@pytest.mark.slow
@pytest.mark.parametrize("family", family_gguf.FAMILIES)
def test_a_plan_with_gpus_is_what_is_taken(family: str, tmp_path: Path, workers: list[str]) -> None:
    path = family_gguf.write(family, tmp_path / "tiny.gguf")
    gpus = tuple(Gpu(f"RPC0[{worker}]", 1 << 30, kind="rpc") for worker in workers)
    endpoints, request = tuple(workers), PlanRequest(n_ctx=4096, n_ubatch=256)
    subject, found = planned(path, replace(HOST, gpus=gpus), request, endpoints)
    assert found.placement.n_gpu_layers > family_gguf.N_LAYER
    check_against_a_load(subject, found, endpoints)
    subject, found = planned(path, replace(HOST, gpus=gpus[:1]), request, endpoints[:1])
    (alone, _) = found.ledger
    less = replace(gpus[0], bytes_free=alone.need - alone.experts // 2)
    subject, found = planned(path, replace(HOST, gpus=(less,)), request, endpoints[:1])
    assert found.ledger[-1].experts, "some are in host memory"
    check_against_a_load(subject, found, endpoints[:1])
