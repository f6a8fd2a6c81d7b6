"""mixcli plan: show the placement and the estimated speed of a model without loading it."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common, json_option, planning_options, purpose_option
from mixcli.commands.quant_options import rule_options, show_types
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.planning.report import Alternative
    from profiles.planner import Plan
    from profiles.request import Purpose, Rule


@click.command("plan", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH, envvar="MIXCLI_MODEL")
@click.option("--quant", metavar="QUANT", help="Quant of a model that is not installed, such as Q4_K_M.")
@rule_options
@planning_options
@click.option(
    "--ubatch", type=click.IntRange(min=32), metavar="TOKENS", help="Physical batch size (n_ubatch)."
)
@purpose_option
@click.option(
    "--verify", is_flag=True, help="Load the model and compare the actual buffer sizes with the plan."
)
@json_option
@common
def command(
    model: str | None,
    quant: str | None,
    rule: "Rule | None",
    load_options: "LoadOptions",
    ubatch: int | None,
    purpose: "Purpose",
    verify: bool,
    as_json: bool,
) -> None:
    """Plan which tensors of MODEL go to which device, and estimate its speed, on this machine or a profile.

    MODEL is an installed model, a .gguf file, org/repo:QUANT on the Hub (only its header is downloaded), or a catalog name such as
    mixtral. Without a quant, all quants are planned and the one that suits the machine is chosen. Without MODEL, the default model is
    planned, or the only one that is installed, or the best of the catalog that fits.
    """
    from mixcli.planning.machines import machine_of, note_unused_cards, target_of
    from mixcli.planning.offers import in_a_plan, plan_or_offer
    from mixcli.planning.other_family import with_measured_shape
    from mixcli.planning.report import as_data, check_rule, others, subject_or_best, types_of
    from mixcli.pull.quant_choice import choice_data
    from mixcli.store.preflight import family_note

    request = replace(load_options.request, n_ubatch=ubatch, purpose=purpose)
    load_options = replace(load_options, request=request)
    note_unused_cards(load_options)
    target = target_of(load_options, rule)
    subject = subject_or_best(model, quant, target)
    check_rule(subject, target)
    disk_of = subject.path if request.from_disk else None
    choice, types = subject.planned, types_of(subject)
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    machine = choice.machine if choice else machine_of(*where, disk_of, [subject.shape])
    subject = with_measured_shape(subject, machine, load_options)
    planned = choice.chosen.plan if subject.planned and choice and choice.chosen else None
    how_chosen = choice_data(subject.label, choice, types, load_options.profile)
    if choice and choice.chosen is None:  # the refusal follows
        show_types(types, how_chosen, as_json=as_json)
    found = planned or plan_or_offer(subject.label, subject.shape, machine, request, load_options, in_a_plan)
    if subject.header is not None:
        found = replace(found, reasons=(*family_note(subject.header), *found.reasons))
    runners_up = others(subject, machine, request, found)

    def show() -> None:
        if choice is not None:
            show_types(types)
            console.line()
        _show(subject.label, found, runners_up)

    console.page({**as_data(subject, found, runners_up), **how_chosen}, show, as_json=as_json)
    if verify:
        from mixcli.planning.verify_plan import show_verified

        show_verified(subject, found, load_options.workers)


def _show(label: str, found: "Plan", runners_up: "list[Alternative]") -> None:
    """Print where everything lies, how fast it should be, llama.cpp's flags, and what else would fit."""
    from mixcli.planning.report import bars, flags

    console.line(f"{label}, context {found.n_ctx} tokens\n")
    for line in bars(found.ledger):
        console.line(line)
    console.line(
        "\nE experts, A attention, O output, T token embedding, K KV cache, C compute, S staging, P process"
    )
    for reason in found.reasons:
        console.line(f"note: {reason}")
    rates = found.estimate
    console.line(
        f"\nestimate  decode {rates.shown(rates.decode)}, prefill {rates.shown(rates.prefill)} tok/s ({rates.basis})"
    )
    console.line(f"llama.cpp {flags(found.placement)}\n")
    has_gpus = len(found.ledger) > 1  # the last account is the host's
    rows = [
        (
            one.what,
            str(one.n_ctx),
            one.estimate.shown(one.estimate.decode),
            one.estimate.shown(one.estimate.prefill),
            *([f"{one.bytes_on_gpus / 2**30:.1f} GiB"] if has_gpus else []),
        )
        for one in runners_up
    ]
    console.table(
        (
            "instead",
            "context",
            "decode tok/s",
            "prefill tok/s",
            *(["experts on GPUs"] if has_gpus else []),
        ),
        rows,
    )
