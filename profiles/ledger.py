"""The ledger: the bytes that a layout needs on every device, part by part."""

from collections.abc import Sequence
from dataclasses import dataclass

from profiles.buffers import Buffers
from profiles.layout import Layout
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, bytes_logits, bytes_process, cells
from profiles.placement import Placement
from profiles.shape import MATRICES, ModelShape

PARTS = ("experts", "attention", "output", "embedding", "kv", "compute", "staging", "process")


@dataclass(frozen=True)
class Account:
    """One device's line of the ledger, all in bytes.

    `staging` is what a GPU needs beside `compute` to work with the host's experts; `process` the program
    itself with its tokenizer and the rows of logits that drafts and labels want.
    """

    device: str
    bytes_free: int
    experts: int = 0
    attention: int = 0
    output: int = 0
    embedding: int = 0
    kv: int = 0
    compute: int = 0
    staging: int = 0
    process: int = 0

    @property
    def weights(self) -> int:
        return self.experts + self.attention + self.output + self.embedding

    @property
    def need(self) -> int:
        return sum(getattr(self, part) for part in PARTS)

    @property
    def left(self) -> int:
        """Bytes that stay free; negative when it does not fit."""
        return self.bytes_free - self.need


def accounts(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, *, staging_apart: bool = True
) -> tuple[Account, ...]:
    """Return the account of every GPU, then the host's. `placement` says context, batch and types; the layout where things are.

    Without `staging_apart` the staging counts as compute buffers: half the work where only the need matters.
    """
    host, buffers = layout.host, Buffers(shape, machine)
    staged = buffers.of(placement, layout)
    plain = buffers.of(placement, layout, staging=False) if staging_apart else staged
    sums = [dict.fromkeys(("experts", "attention", "output", "kv"), 0) for _ in range(host + 1)]
    kv = bytes_kv_layer(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
    for layer, home, experts in zip(shape.each_layer(), layout.attention, layout.experts, strict=True):
        sums[home]["attention"] += layer.attention
        sums[home]["kv"] += kv
        for matrix, at in zip(MATRICES, experts, strict=True):
            sums[at]["experts"] += getattr(layer, matrix)
    if not (layout.output == host and shape.tied):
        sums[layout.output]["output"] += shape.bytes_output
    placed = sum(line[part] for line in sums[:host] for part in ("experts", "attention", "output"))
    if shape.tied and layout.output != host:
        placed -= shape.bytes_output  # the embedding is there twice
    named = sum(sums[host][part] for part in ("experts", "attention", "output"))
    rows = [
        Account(
            gpu.name,
            gpu.bytes_free,
            **sums[i],
            compute=min(plain[i], staged[i]),
            staging=max(0, staged[i] - plain[i]),
        )
        for i, gpu in enumerate(machine.gpus)
    ]
    rows.append(
        Account(
            "host",
            machine.bytes_free,
            **sums[host],
            embedding=shape.bytes_weights - placed - named,
            compute=staged[host] + bytes_logits(shape, placement.n_sequences),
            process=bytes_process(shape, placement),
        )
    )
    return tuple(rows)


def expectation(ledger: Sequence[Account]) -> dict[str, dict[str, int]]:
    """Return bytes of weights, kv and compute (with staging) by device; the host is "host"."""
    return {
        account.device: {
            "weights": account.weights,
            "kv": account.kv,
            "compute": account.compute + account.staging,
        }
        for account in ledger
    }


def shortage(ledger: Sequence[Account], machine: Machine) -> tuple[str, int] | None:
    """Return the first device that has too little memory and the bytes that it lacks; None where all fits.

    Unified memory is the GPU's and the host's at once: what both need together must fit into it too.
    """
    for account in ledger:
        if account.left < 0:
            return account.device, -account.left
    lacking = sum(account.need for account in ledger) - machine.bytes_free
    return ("unified memory", lacking) if machine.unified and lacking > 0 else None


def needs_of(ledger: Sequence[Account]) -> dict[str, int]:
    """Return all bytes that a plan takes of each device; the host is "host"."""
    return {account.device: account.need for account in ledger}
