"""Does the card compute what the processor computes? The engine's self-test on it, and greedy text in every way that a plan can take."""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

from bench.gpu.device import device
from bench.gpu.models import small_model
from mixcli.llama import selftest
from mixcli.llama.context import Context
from mixcli.llama.model import Model
from mixcli.store import store
from mixcli.store.headers import header_of, shape_of
from profiles.ledger import Account
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import PlanRequest
from tests.support.side_by_side import Verdict, side_by_side, verdict

TEXT = (
    "Mixtral is a mixture of experts: in each layer a router sends every token to two of eight feed-forward blocks, and adds up what they "
    "answer. So only a quarter of the weights is read for a token, though all of them must be somewhere. The experts that do not fit"
)
N_TOKENS = 48
# share of the model's bytes that the card gets, cache type
WAYS = ((2.0, "f16"), (2.0, "q8_0"), (0.6, "f16"), (0.3, "q8_0"))


def main(options: argparse.Namespace) -> int:
    with device(options) as (machine, card):
        print(f"Card: {card['name']}. The self-test on the processor, then on the card", flush=True)
        safe, note = selftest.checked(Placement())
        on_card = replace(selftest.TINY, repack=safe.repack, n_gpu_layers=2, workers=machine.workers)
        good = selftest.computes(on_card) and note is None
        print("passed" if good else note or "logits are not finite", flush=True)
        for path, (share, kv) in product(subjects(options), WAYS):
            account, found = compared(path, machine, int(share * path.stat().st_size), kv)
            print(
                f"{path.name}, {kv}, {account.weights >> 20} MiB of weights on the card: {found}", flush=True
            )
            good = good and found.same and account.weights > 0
    return int(not good)


def subjects(options: argparse.Namespace) -> list[Path]:
    """Return the small synthetic model and the demo: the one that is named, else the one in the store, if it is there."""
    demos = [model.path for model in store.models() if model.label == "demo:Q4_K_M"]
    return [small_model(options.folder), *([options.demo] if options.demo else demos)]


def compared(path: Path, machine: Machine, size: int, kv: str) -> tuple[Account, Verdict]:
    """Plan for a card of `size` bytes and for none, and let both compute; gives the card's account too."""
    shape = shape_of(header_of([path]))
    request = PlanRequest(n_ctx=1024, kv=kv, n_ubatch=256)
    card = plan(shape, replace(machine, gpus=(replace(machine.gpus[0], bytes_free=size),)), request)
    alone = plan(shape, replace(machine, gpus=()), request).placement
    with (
        Model.load(path, replace(alone, op_offload=False)) as first,
        Model.load(path, replace(card.placement, workers=machine.workers)) as second,
        Context(first, replace(alone, op_offload=False)) as one,
        Context(second, card.placement) as other,
    ):
        tokens = [first.vocab.bos] * first.vocab.adds_bos + first.vocab.tokenize(TEXT)
        return card.ledger[0], verdict(side_by_side(one, other, tokens, N_TOKENS))
