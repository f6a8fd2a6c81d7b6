"""The ledger against buffers that llama.cpp really takes: small models on RPC workers as GPUs, in every layout."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.store.headers import shape_of
from profiles.ledger import accounts, expectation
from profiles.machine import Gpu, Machine
from profiles.placement import Placement
from quantize.sources.gguf_header import read_header
from tests.profiles.test_ledger import gpu_layouts
from tests.support.family import FAMILY, parts_of, write_parts
from tests.support.llama_workers import MIB, taken

BATCHES = {
    "llama": Placement(1024, n_ubatch=256, flash_attn=False),
    "mistral4, gate and up in one": Placement(1024, n_ubatch=256),
    "deepseek2": Placement(2048, n_ubatch=128, type_k="q8_0", type_v="q8_0"),
}
LATENT = {"kv_lora_rank": 192, "n_rot": 32, "n_head_dim": 64}
NEAR = 0.01 * 3  # MiB: the log has two digits, and three lines are summed up


@pytest.mark.parametrize("name", BATCHES)
def test_every_layout_takes_what_the_ledger_says(name: str, tmp_path: Path, workers: list[str]) -> None:
    facts = replace(
        FAMILY[name], n_layer=6, n_embd=256, n_ff=512, **(LATENT if FAMILY[name].kv_lora_rank else {})
    )
    path = write_parts(tmp_path / "m.gguf", *parts_of(facts))
    shape = shape_of(read_header(path))
    machine = Machine(0, 2, tuple(Gpu(f"RPC0[{endpoint}]", 0, kind="rpc") for endpoint in workers))
    cases, expected, names = [], [], []
    for what, layout in gpu_layouts(shape).items():
        placement = replace(
            BATCHES[name],
            n_gpu_layers=layout.n_gpu_layers,
            tensor_split=layout.tensor_split(),
            tensor_overrides=layout.overrides(machine, shape),
            load_mode="none",
            repack=False,
        )
        names.append(what)
        cases.append((path, placement))
        expected.append(expectation(accounts(shape, machine, placement, layout)))
    for what, rows in zip(names, taken(workers, cases, expected), strict=True):
        assert {device for device, *_ in rows} == {*(gpu.name for gpu in machine.gpus), "host"}
        for device, planned, real in rows:
            assert abs(real - planned) <= NEAR * MIB, (what, device, planned, real)
