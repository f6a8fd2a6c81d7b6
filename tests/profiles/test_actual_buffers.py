"""Plans against what llama.cpp really takes: small models with latent attention on RPC workers as GPUs, in twelve placements."""

from dataclasses import replace
from pathlib import Path

from mixcli.store.headers import shape_of
from profiles.ledger import accounts, expectation
from profiles.machine import Gpu, Machine
from profiles.placement import Placement
from quantize.sources.gguf_header import read_header
from tests.profiles.test_ledger import gpu_layouts
from tests.support.family import FAMILY, parts_of, write_parts
from tests.support.llama_workers import taken

LAYOUTS = (
    "two GPUs",
    "experts on the host",
    "every third on the host",
    "one layer split at gate",
    "half the layers on the host",
    "two GPUs, some on the host",
)
BATCHES = (Placement(1024, n_ubatch=64), Placement(2048, n_ubatch=64, type_k="q8_0", type_v="q8_0"))


def test_twelve_placements_take_what_the_ledger_says(tmp_path: Path, workers: list[str]) -> None:
    machine = Machine(0, 2, tuple(Gpu(f"RPC0[{endpoint}]", 0, kind="rpc") for endpoint in workers))
    cases, expected = [], []
    for name, batch in zip(("mistral4, gate and up in one", "deepseek2"), BATCHES, strict=True):
        facts = replace(
            FAMILY[name],
            n_layer=6,
            n_embd=256,
            n_ff=512,
            n_ff_expert=512,
            n_expert=16,
            kv_lora_rank=192,
            n_rot=32,
            n_head_dim=64,
        )
        path = write_parts(tmp_path / f"{facts.architecture}.gguf", *parts_of(facts))
        shape = shape_of(read_header(path))
        for what in LAYOUTS:
            layout = gpu_layouts(shape)[what]
            placement = replace(
                batch,
                n_gpu_layers=layout.n_gpu_layers,
                tensor_split=layout.tensor_split(),
                tensor_overrides=layout.overrides(machine, shape),
                load_mode="none",
                repack=False,
            )
            cases.append((path, placement))
            expected.append(expectation(accounts(shape, machine, placement, layout)))
    for case, rows in zip(cases, taken(workers, cases, expected), strict=True):
        assert {name for name, *_ in rows} == {*(gpu.name for gpu in machine.gpus), "host"}
        for device, planned, real in rows:
            assert abs(real - planned) <= 0.02 * planned, (device, planned, real, case)
