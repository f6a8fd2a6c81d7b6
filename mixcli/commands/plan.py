"""mixcli plan: show the placement and the estimated speed of a model without loading it."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option, model_argument, planning_options, purpose_option
from mixcli.commands.quant_options import rule_options, show_types
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.planning.report import Alternative, Subject
    from mixcli.planning.upgrade_options import Upgrade
    from mixcli.planning.what_if import HardwareComparison
    from mixcli.pull.quant_choice import TypeRow
    from profiles.machine import Machine
    from profiles.planner import Plan
    from profiles.request import Purpose, Rule


@click.command("plan", cls=CheckedCommand)
@model_argument
@click.option("--quant", metavar="QUANT", help="Quant of a model that is not installed, such as Q4_K_M.")
@rule_options
@planning_options
@click.option(
    "--ubatch", type=click.IntRange(min=32), metavar="TOKENS", help="Physical batch size (n_ubatch)."
)
@purpose_option
@click.option(
    "--if",
    "changes",
    multiple=True,
    metavar="CHANGE",
    help="Compare with other hardware: ram=96GiB@5600 (MT/s), gpu=+3090, gpu=4090, pcie=4x16, bandwidth=90 (GB/s), cores=16, "
    "worker=24GiB@10GbE; a comma combines several; may be repeated.",
)
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
    changes: tuple[str, ...],
    verify: bool,
    as_json: bool,
) -> None:
    """Plan which tensors of MODEL go to which device, and estimate its speed, on this machine or a profile.

    MODEL is an installed model, a .gguf file, org/repo:QUANT on the Hub (only its header is downloaded), or a catalog name such as
    mixtral. Without a quant, all quants are planned and the one that suits the machine is chosen. Without MODEL, the default model is
    planned, or the only one that is installed, or the best catalog model that fits. With --if, changed hardware is compared with the current.
    """
    from mixcli.planning.machines import note_unused_cards, target_of
    from mixcli.planning.report import check_rule, subject_or_best

    request = replace(load_options.request, n_ubatch=ubatch).for_work(purpose)
    load_options = replace(load_options, request=request)
    upgrades = _upgrades(changes, load_options)
    note_unused_cards(load_options)
    target = target_of(load_options, rule)
    subject = subject_or_best(model, quant, target)
    check_rule(subject, target)
    if subject.header is not None:
        from mixcli.planning.template_check import check_template

        check_template(subject.header)
    subject, found = _planned(subject, load_options, upgrades, as_json=as_json)
    if verify:
        from mixcli.planning.machines import check_devices
        from mixcli.planning.verify_plan import show_verified

        devices = [account.device for account in found.ledger]
        check_devices(devices, load_options, "`mixcli plan` without --verify")
        show_verified(subject, found)


def _upgrades(changes: tuple[str, ...], load_options: "LoadOptions") -> "tuple[Upgrade, ...]":
    if not changes:
        return ()
    from mixcli.planning.what_if import prepared

    return prepared(changes, load_options)


def _planned(
    subject: "Subject", load_options: "LoadOptions", upgrades: "tuple[Upgrade, ...]", *, as_json: bool
) -> "tuple[Subject, Plan]":
    """Plan and print a subject; return it with the plan that was made."""
    from mixcli.planning.machines import machine_of
    from mixcli.planning.offers import in_a_plan, plan_or_offer
    from mixcli.planning.report import as_data, others, types_of
    from mixcli.planning.workers import plan_with_workers
    from mixcli.pull.quant_choice import choice_data
    from profiles.errors import DoesNotFit

    request, choice, types = load_options.request, subject.planned, types_of(subject)
    disk_of = subject.path if request.from_disk else None
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    machine = choice.machine if choice else machine_of(*where, disk_of, [subject.shape])
    if subject.header is not None:
        from mixcli.planning.other_family import with_measured_shape

        subject = with_measured_shape(subject, machine, load_options)
    found = choice.chosen.plan if subject.planned and choice and choice.chosen else None
    how_chosen = choice_data(subject.label, choice, types, load_options.profile)

    def plan_on(machine: "Machine") -> "Plan":
        return plan_or_offer(subject.label, subject.shape, machine, request, load_options, in_a_plan)

    try:
        if found is None or machine.workers:
            found, machine = plan_with_workers(machine, plan_on, request.purpose)
    except DoesNotFit:
        comparison = _compared(subject, None, machine, load_options, upgrades)
        _show_refused(types, how_chosen, comparison, as_json=as_json)
        raise
    if subject.header is not None:
        from mixcli.store.preflight import family_note

        found = replace(found, reasons=(*family_note(subject.header), *found.reasons))
    comparison = _compared(subject, found, machine, load_options, upgrades)
    runners_up = [] if comparison else others(subject, machine, request, found)

    def show() -> None:
        if choice is not None:
            show_types(types)
            console.line()
        _show(subject.label, found)
        if comparison:
            _compare(comparison)
        else:
            _instead(found, runners_up)

    data = {**as_data(subject, found, runners_up), **how_chosen, **_comparison_data(comparison)}
    console.page(data, show, as_json=as_json)
    return subject, found


def _compared(
    subject: "Subject",
    found: "Plan | None",
    machine: "Machine",
    load_options: "LoadOptions",
    upgrades: "tuple[Upgrade, ...]",
) -> "HardwareComparison | None":
    if not upgrades:
        return None
    from mixcli.planning.what_if import compare

    return compare(subject, found, machine, load_options, upgrades)


def _show_refused(
    types: "tuple[TypeRow, ...]",
    how_chosen: dict[str, object],
    comparison: "HardwareComparison | None",
    *,
    as_json: bool,
) -> None:
    """Print what was planned for a model that does not fit today; the refusal follows."""
    if as_json and (types or comparison):
        console.data({**how_chosen, **_comparison_data(comparison)})
        return
    if types:
        show_types(types)
    if comparison:
        _compare(comparison)


def _comparison_data(comparison: "HardwareComparison | None") -> dict[str, object]:
    return {"if": comparison.to_data()} if comparison else {}


def _compare(comparison: "HardwareComparison") -> None:
    """Print what other hardware would gain, what was assumed, and what gains nothing."""
    header, *rows = comparison.table()
    console.table(header, rows)
    for note in comparison.notes():
        console.prose(f"note: {note}")


def _show(label: str, found: "Plan") -> None:
    """Print where everything is, how fast it should be, and llama.cpp's flags."""
    from mixcli.planning.report import bars, flags, network_lines

    console.line(f"{label}, context {found.n_ctx} tokens\n")
    for line in bars(found.ledger, console.width(sys.stdout)):
        console.prose(line)
    console.prose(
        "\nE experts, A attention, O output, T token embedding, K KV cache, C compute, S staging, P process"
    )
    for reason in found.reasons:
        console.prose(f"note: {reason}")
    rates = found.estimate
    console.prose(
        f"\nestimate  decode {rates.shown(rates.decode)}, prefill {rates.shown(rates.prefill)} tok/s ({rates.basis})"
    )
    for line in network_lines(rates):
        console.prose(line)
    console.line(f"llama.cpp {flags(found.placement)}\n")


def _instead(found: "Plan", runners_up: "list[Alternative]") -> None:
    """Print what else would fit."""
    has_gpus = len(found.ledger) > 1  # the last entry is the host's
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
