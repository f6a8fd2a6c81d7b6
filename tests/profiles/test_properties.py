"""What holds for every plan: never above the budget, never slower with more memory, never without three ways out."""

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from profiles.dimensions import Mla
from profiles.errors import DoesNotFit
from profiles.layout import layout_of
from profiles.ledger import accounts
from profiles.machine import Gpu, Machine
from profiles.memory import bytes_kv, cells
from profiles.placement import Placement
from profiles.planner import Plan, PlanRequest, plan
from profiles.shape import LayerShape, ModelShape

MIB = 1 << 20


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    n_layer = draw(st.integers(1, 8))
    n_head = draw(st.sampled_from([8, 16, 32]))
    n_embd = n_head * draw(st.sampled_from([64, 128]))
    n_expert = draw(st.sampled_from([0, 4, 8]))
    small = draw(st.integers(1, 400)) * MIB
    large = small + draw(st.integers(0, 200)) * MIB
    is_fused = bool(n_expert) and draw(st.booleans())
    gate, up = (2 * small, 0) if is_fused else (small, small)
    kinds = [LayerShape(20 * MIB, gate, up, small), LayerShape(24 * MIB, gate, up, large)]
    n_dense = draw(st.integers(0, min(2, n_layer - 1))) if n_expert else 0
    others = draw(st.lists(st.sampled_from(kinds), min_size=n_layer - n_dense, max_size=n_layer - n_dense))
    layers = (*[LayerShape(60 * MIB, 0, 0, 0)] * n_dense, *others)
    mla = draw(st.sampled_from([None, Mla(64, 128, 64, 128, 128)]))
    tied = draw(st.booleans())
    n_vocab = draw(st.sampled_from([512, 32000, 131072]))
    embedding = n_vocab * n_embd // 2
    output = embedding
    experts = sum(layer.experts for layer in layers)
    other = sum(layer.attention for layer in layers) + embedding + (0 if tied else output)
    return ModelShape(
        n_layer=n_layer,
        n_embd=n_embd,
        n_ff=n_embd * 3,
        n_head=n_head,
        n_head_kv=1 if mla else draw(st.sampled_from([2, 8])),
        head_dim_k=192 if mla else n_embd // n_head,
        head_dim_v=128 if mla else n_embd // n_head,
        mla=mla,
        is_fused=is_fused,
        n_layer_dense=n_dense,
        n_ff_shared=draw(st.sampled_from([0, 256])) if n_expert else 0,
        n_expert=n_expert,
        n_expert_used=2 if n_expert else 0,
        n_vocab=n_vocab,
        n_ctx_train=32768,
        bytes_experts=experts if n_expert else 0,
        bytes_other=other if n_expert else other + experts,
        params_total=(experts + other) * 2,
        params_active=(experts + other) // 2,
        layers=layers,
        bytes_embedding=embedding,
        bytes_output=output,
        tied=tied,
    )


@st.composite
def machines(draw: st.DrawFn, most_gpus: int = 3) -> Machine:
    gpus = tuple(
        Gpu(
            f"CUDA{i}",
            draw(st.integers(0, 24 * 1024)) * MIB,
            kind=draw(st.sampled_from(["cuda", "rpc"])),
            bandwidth=draw(st.sampled_from([100.0, 360.0, 1008.0])),
        )
        for i in range(draw(st.integers(0, most_gpus)))
    )
    return Machine(
        draw(st.integers(1, 64 * 1024)) * MIB,
        draw(st.integers(1, 32)),
        gpus,
        kv_types=draw(st.sampled_from([("f16",), ("f16", "q8_0")])),
    )


requests = st.builds(
    PlanRequest,
    n_ctx=st.none() | st.integers(64, 32768),
    kv=st.sampled_from([None, "auto", "q8_0"]),
    n_ubatch=st.sampled_from([None, None, 256, 2048]),
    purpose=st.sampled_from(["chat", "batch"]),
    from_disk=st.booleans(),
)
quick_to_fail = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
many = settings(quick_to_fail, max_examples=300)
some = settings(quick_to_fail, max_examples=60)


def planned(shape: ModelShape, machine: Machine, request: PlanRequest) -> Plan | None:
    try:
        return plan(shape, machine, request)
    except DoesNotFit:
        return None


@pytest.mark.slow
@many
@given(shapes(), machines(), requests)
def test_no_plan_is_above_its_budget(shape: ModelShape, machine: Machine, request: PlanRequest) -> None:
    try:
        found = plan(shape, machine, request)
    except DoesNotFit as error:
        assert len(re.findall(r", or ", str(error))) == 2 or "the trained context" in str(error)
        return
    placement = found.placement
    assert request.n_ctx in (None, placement.n_ctx)
    assert request.kv in (None, "auto", placement.type_k)
    assert request.n_ubatch in (None, placement.n_ubatch)
    assert Placement.from_json(placement.to_json()) == placement
    # the placement alone, read as llama.cpp reads it, gives the same layout and the same ledger
    layout = layout_of(shape, placement, machine)
    assert layout == found.layout
    ledger = accounts(shape, machine, placement, layout)
    assert ledger == found.ledger
    *gpus, host = ledger
    assert all(account.left >= 0 for account in gpus)
    assert host.left >= 0 or (request.from_disk and -host.left <= host.experts)
    # nothing is lost and nothing counted twice
    twice = shape.bytes_output if shape.tied and layout.output != layout.host else 0
    assert sum(account.weights for account in ledger) == shape.bytes_weights + twice
    assert sum(account.kv for account in ledger) == bytes_kv(
        shape, cells(placement.n_ctx), placement.type_k, placement.type_v
    )
    # attention leaves the GPUs only when no experts are there
    if 0 < layout.n_gpu_layers <= shape.n_layer:
        assert not any(account.experts for account in gpus)


@pytest.mark.slow
@some
@given(shapes(), machines(), st.integers(1, 8 * 1024), st.sampled_from([4096, 16384]), st.booleans())
def test_more_memory_never_plans_slower(
    shape: ModelShape, machine: Machine, more: int, n_ctx: int, from_disk: bool
) -> None:
    """With up to three GPUs: more of any of them, or of main memory, gives an estimate at least as good."""
    # a cache in 8 bits is smaller and worse, and only a model that is wholly in memory may be repacked: not to be compared
    request = PlanRequest(n_ctx=n_ctx, kv="f16", from_disk=from_disk and bool(machine.gpus))
    before = planned(shape, machine, request)
    richer = [replace(machine, bytes_free=machine.bytes_free + more * MIB)]
    for i, gpu in enumerate(machine.gpus):
        grown = replace(gpu, bytes_free=gpu.bytes_free + more * MIB)
        richer.append(replace(machine, gpus=(*machine.gpus[:i], grown, *machine.gpus[i + 1 :])))
    for other in richer:
        after = planned(shape, other, request)
        if before is not None:
            assert after is not None
            assert after.seconds("chat") <= before.seconds("chat") * (1 + 1e-9)
