"""Shapes, sizes and plans: pure numbers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.store.headers import shape_of
from profiles.errors import BadRequest, DoesNotFit
from profiles.machine import MemoryBudget
from profiles.memory import bytes_kv
from profiles.placement import Placement
from profiles.planner import GIB, Gpu, Machine, PlanRequest, plan
from profiles.rates import HostRates, ProductRates, TypeRates
from profiles.shape import ModelShape, model_shape
from profiles.speed import LOW
from quantize.sources.gguf_header import read_header
from tests.profiles.file_choices import shapes

MIXTRAL = ModelShape(
    n_layer=32,
    n_embd=4096,
    n_ff=14336,
    n_head=32,
    n_head_kv=8,
    head_dim_k=128,
    head_dim_v=128,
    n_expert=8,
    n_expert_used=2,
    n_vocab=32000,
    n_ctx_train=32768,
    bytes_experts=27 * GIB,
    bytes_other=1 * GIB,
    params_total=46_702_792_704,
    params_active=12_879_425_536,
)


def test_kv_of_mixtral_is_128_kib_a_token() -> None:
    assert bytes_kv(MIXTRAL, 1) == 131_072
    assert bytes_kv(MIXTRAL, 1, "q8_0", "q8_0") == 69_632
    assert bytes_kv(MIXTRAL, 4096) == 4096 * 131_072


def test_a_shape_counts_experts_apart() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 8,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.feed_forward_length": 16,
        "llama.expert_count": 4,
        "llama.expert_used_count": 2,
        "llama.context_length": 64,
    }
    tensors = [
        ("token_embd.weight", 80, 160, "F16"),
        ("blk.0.ffn_up_exps.weight", 512, 288, "Q4_0"),
        ("blk.0.ffn_gate_inp.weight", 32, 128, "F32"),
    ]
    shape = model_shape(metadata, tensors)
    assert (shape.bytes_experts, shape.bytes_other, shape.n_vocab) == (288, 288, 10)
    assert (shape.params_total, shape.params_active) == (624, 80 + 32 + 256)
    assert (shape.head_dim_k, shape.n_head_kv) == (4, 1)


def test_the_whole_context_is_kept_when_it_was_asked_for() -> None:
    assert plan(MIXTRAL, Machine(64 * GIB, 8), PlanRequest(n_ctx=16384)).n_ctx == 16384
    with pytest.raises(
        DoesNotFit, match=r"needs 32\.5 GiB .* 30\.0 GiB are free; try --ctx \d+, or --quant Q4_K_S, or "
    ) as refusal:
        plan(MIXTRAL, Machine(30 * GIB, 8), PlanRequest(n_ctx=32768))
    way_out = int(re.findall(r"--ctx (\d+)", str(refusal.value))[0])
    assert plan(MIXTRAL, Machine(30 * GIB, 8), PlanRequest(n_ctx=way_out)).n_ctx == way_out


def test_a_context_that_nobody_asked_for_is_halved_until_it_fits() -> None:
    assert plan(MIXTRAL, Machine(64 * GIB, 8), PlanRequest()).n_ctx == 8192
    assert plan(MIXTRAL, Machine(29 * GIB, 8), PlanRequest()).n_ctx < 8192


def test_a_context_beyond_the_models_own_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="trained context of 32768"):
        plan(MIXTRAL, Machine(512 * GIB, 8), PlanRequest(n_ctx=65536))


def test_too_little_memory_says_need_have_and_a_way_out() -> None:
    with pytest.raises(
        DoesNotFit, match=r"needs 28\.\d GiB .* 16\.0 GiB are free; try .*, or .*, or "
    ) as refusal:
        plan(MIXTRAL, Machine(16 * GIB, 8), PlanRequest())
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (None, "16.0 GiB are free; .* closing other programs"),
        (MemoryBudget("a higher --ram", "--ram"), "16.0 GiB are allowed by --ram; .* a higher --ram"),
        (MemoryBudget("a profile with more memory than x"), "are free; .* a profile with more memory than x"),
    ],
)
def test_the_way_to_more_memory_fits_what_limits_it(budget: MemoryBudget | None, words: str) -> None:
    """Closing programs frees nothing where an option or a profile says how much there is."""
    machine = Machine(16 * GIB, 8, budget=budget)
    with pytest.raises(DoesNotFit, match=words) as refusal:
        plan(MIXTRAL, machine, PlanRequest(n_ctx=512))
    assert ("closing" in str(refusal.value)) is (budget is None)


def test_work_in_numbers_fits_in_the_context() -> None:
    """Else the plan would be for work that the model cannot do in one piece."""
    machine = Machine(64 * GIB, 8)
    assert plan(MIXTRAL, machine, PlanRequest().for_work("3000+100")).n_ctx == 8192
    assert plan(MIXTRAL, machine, PlanRequest().for_work("20000+10")).n_ctx >= 20010
    assert plan(MIXTRAL, machine, PlanRequest(n_ctx=64).for_work("batch")).n_ctx == 64
    with pytest.raises(DoesNotFit, match=r"100000\+10 are 100010 tokens, .* trained context of 32768"):
        plan(MIXTRAL, machine, PlanRequest().for_work("100000+10"))
    with pytest.raises(
        BadRequest, match="20010 tokens, which do not fit in a context of 8192; use --ctx 20010"
    ):
        plan(MIXTRAL, machine, PlanRequest(n_ctx=8192).for_work("20000+10"))
    small = Machine(29 * GIB, 8)
    assert plan(MIXTRAL, small, PlanRequest()).n_ctx < 8192
    with pytest.raises(DoesNotFit, match="with a context of 8000 tokens") as refusal:
        plan(MIXTRAL, small, PlanRequest().for_work("7900+100"))
    assert "--ctx" not in str(refusal.value)  # no smaller one holds the work


def test_a_placement_survives_json() -> None:
    placement = Placement(
        tensor_overrides=((r"blk\.1\.ffn_up_exps", "CPU"),), tensor_split=(0.5, 0.5), type_k="q8_0"
    )
    assert Placement.from_json(placement.to_json()) == placement
    with pytest.raises(ValueError, match="not fields of a placement: n_gpus"):
        Placement.from_json('{"n_gpus": 2}')


def test_one_reader_on_a_processor_goes_without_flash_attention_where_there_is_room() -> None:
    """On a processor flash attention is slower; many texts in one cache, a GPU and quantized values are other matters."""
    cpu = Machine(64 * GIB, 8)
    alone = plan(MIXTRAL, cpu, PlanRequest(n_ctx=8192, n_ubatch=128))
    assert not alone.placement.flash_attn
    assert plan(MIXTRAL, cpu, PlanRequest(purpose="batch")).placement.flash_attn
    assert plan(MIXTRAL, cpu, PlanRequest(kv="q8_0")).placement.flash_attn
    assert plan(MIXTRAL, Machine(64 * GIB, 8, (Gpu("CUDA0", 24 * GIB),)), PlanRequest()).placement.flash_attn

    (host,) = alone.ledger
    tight = plan(MIXTRAL, Machine(host.need - 1, 8), PlanRequest(n_ctx=8192, n_ubatch=128))
    assert tight.placement.flash_attn
    assert tight.seconds("chat") > alone.seconds("chat")


def test_a_smaller_micro_batch_that_is_faster_is_no_matter_of_memory() -> None:
    shape = shapes("mixtral")["Q4_K_M"]
    products = ProductRates(20.0, (1.0, 2.0, 0.5), (1.0, 2.0, 0.5))  # a processor that is best at 64 tokens
    rates = HostRates(tuple(TypeRates(name, products) for name in shape.types))
    roomy = plan(shape, Machine(64 * GIB, 8, rates=rates), PlanRequest(n_ctx=8192))
    assert roomy.placement.n_ubatch < 512
    assert not any("n_ubatch" in reason for reason in roomy.reasons)
    need = roomy.ledger[-1].need
    tight = plan(shape, Machine(need, 8, rates=rates), PlanRequest(n_ctx=8192))
    assert any("n_ubatch reduced" in reason for reason in tight.reasons)


# Mixtral 8x7B at Q4_K_M as it ran on an H200 with so much of its memory, 16 cores beside it (docs/benchmarks.md): writes, reads
@pytest.mark.parametrize(
    ("gib", "decode", "prefill"), [(24, 47.71, 2413.0), (16, 19.89, 2267.4), (12, 15.03, 1927.8)]
)
def test_the_range_that_is_shown_holds_what_was_measured_on_a_gpu(
    gib: int, decode: float, prefill: float, header_only: Callable[[str, str], Path]
) -> None:
    card = Gpu("CUDA0", (gib << 30) - (512 << 20), bandwidth=4277.0, link=47.9, tflops=856.0)
    machine = Machine(98 << 30, 16, (card,), bandwidth=140.0)
    found = plan(
        shape_of(read_header(header_only("mixtral-8x7b", "Q4_K_M"))),
        machine,
        PlanRequest(n_ctx=8192, kv="f16"),
    )
    assert 0.95 * LOW <= decode / found.estimate.decode <= 1.05
    assert 0.95 * LOW <= prefill / found.estimate.prefill <= 1.05
