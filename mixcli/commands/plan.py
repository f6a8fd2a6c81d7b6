"""mixcli plan: what lives where, before anything is loaded."""

import click

from mixcli.commands.options import common, json_option, machine_options
from mixcli.console import console
from mixcli.words import size_in_bytes


@click.command("plan")
@click.argument("model", required=False, envvar="MIXCLI_MODEL")
@click.option("--quant", metavar="TYPE", help="File type of a model that is not here, such as Q4_K_M.")
@click.option("--ctx", "n_ctx", type=click.IntRange(min=64), metavar="TOKENS", help="Context window.")
@machine_options
@click.option("--ubatch", type=click.IntRange(min=32), metavar="TOKENS", help="Tokens computed at once.")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["chat", "batch"]),
    default="chat",
    show_default=True,
    help="What to be fast at.",
)
@click.option(
    "--from-disk", is_flag=True, help="Allow experts that do not fit into memory to stay on disk; slow."
)
@click.option("--verify", is_flag=True, help="Load the model and compare every buffer with the plan.")
@json_option
@common
def command(
    model: str | None,
    quant: str | None,
    n_ctx: int | None,
    profile: str | None,
    vram: str | None,
    ram: str | None,
    kv: str | None,
    workers: tuple[str, ...],
    ubatch: int | None,
    purpose: str,
    from_disk: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Plan MODEL for this machine, or for a profile: which tensors go to which device, and how fast that should be.

    MODEL is a model of `mixcli list`, a .gguf file, org/repo:TYPE of the Hub (only its header is fetched), or a name such as
    mixtral that is not here yet.
    """
    from mixcli.insight.machines import machine_of
    from mixcli.insight.plans import as_data, bars, flags, others, subject_of
    from profiles.planner import Request, plan

    subject = subject_of(model, quant)
    machine = machine_of(
        profile, size_in_bytes(vram) if vram else None, size_in_bytes(ram) if ram else None, workers
    )
    request = Request(n_ctx, kv, ubatch, "batch" if purpose == "batch" else "chat", from_disk=from_disk)
    found = plan(subject.shape, machine, request)
    runners_up = others(subject, machine, request, found)
    if as_json:
        console.data(as_data(subject, found, runners_up))
    else:
        console.line(f"{subject.label}, context {found.n_ctx} tokens\n")
        for line in bars(found.ledger):
            console.line(line)
        console.line(
            "\nE experts, A attention, O output, T token embedding, K KV cache, C compute, S staging, P process"
        )
        for reason in found.reasons:
            console.line(f"note: {reason}")
        rates = found.estimate
        console.line(
            f"\nestimate  writes {rates.shown(rates.decode)}, reads {rates.shown(rates.prefill)} tokens/s (not measured)"
        )
        console.line(f"llama.cpp {flags(found.placement)}\n")
        rows = [
            (
                one.what,
                str(one.n_ctx),
                f"{one.decode:.1f}",
                f"{one.prefill:.0f}",
                f"{one.bytes_on_gpus / 2**30:.1f} GiB",
            )
            for one in runners_up
        ]
        console.table(("instead", "context", "writes/s", "reads/s", "experts on GPUs"), rows)
    if verify:
        from mixcli.insight.verify import show_verified

        show_verified(subject, found, workers)
