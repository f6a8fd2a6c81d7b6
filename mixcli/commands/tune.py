"""mixcli tune: benchmark placements around the plan and keep the best."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    NAME_OR_PATH,
    common,
    json_option,
    model_argument,
    planning_options,
    purpose_option,
)
from mixcli.commands.quant_options import rule_options
from mixcli.errors import DoesNotFit, UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.planning.report import Subject
    from mixcli.planning.tuning_cache import TuningRow
    from mixcli.pull.quant_choice import Target
    from profiles.machine import Machine
    from profiles.request import Purpose, Rule


@click.command("tune", cls=CheckedCommand)
@model_argument
@click.option("-m", "--model", "named", type=NAME_OR_PATH, hidden=True)  # as MODEL was given before
@rule_options
@planning_options
@purpose_option
@click.option(
    "--seconds",
    "budget",
    type=click.FloatRange(min=0),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="Start no new measurement after this time.",
)
@click.option("--show", is_flag=True, help="Show earlier measurements only.")
@click.option(
    "--target-tps",
    type=click.FloatRange(min=0.01),
    metavar="N",
    help="Find the largest context and the best quant that still decode N tok/s.",
)
@json_option
@common
def command(
    model: str | None,
    named: str | None,
    rule: "Rule | None",
    load_options: "LoadOptions",
    purpose: "Purpose",
    budget: float,
    show: bool,
    target_tps: float | None,
    as_json: bool,
) -> None:
    """Benchmark a few placements of MODEL on this machine and use the fastest from now on.

    Without MODEL, the default model is measured, or the only one that is installed.
    """
    from mixcli.planning.machines import check_devices, machine_of, target_of
    from mixcli.planning.offers import in_a_load, plan_or_offer
    from mixcli.planning.other_family import with_measured_shape
    from mixcli.planning.report import check_rule, subject_of
    from mixcli.planning.tuning_cache import evidence

    load_options = replace(load_options, request=load_options.request.for_work(purpose))
    request = load_options.request
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    target = target_of(load_options, rule)
    subject = subject_of(named or model, None, target)
    check_rule(subject, target)
    if subject.path is None:
        raise UsageError(
            f"{subject.label} is not installed, so it cannot be measured; run `mixcli pull {subject.label}`"
        )
    machine = machine_of(*where, shapes=[subject.shape])
    if show:
        rows = evidence(subject.path, machine, request)
        if not rows:
            raise UsageError(f"no measurements of {subject.label} yet; run `mixcli tune` without --show")
    else:
        check_devices([gpu.name for gpu in machine.gpus], load_options)
        subject = with_measured_shape(subject, machine, load_options)
        plan_or_offer(
            subject.label, subject.shape, machine, request, load_options, in_a_load
        )  # or its refusal
        rows = _measured(subject, machine, load_options, budget, target_tps)
        _note_better_type(subject.label, target)
    cells = (
        (row.what, f"{row.decode:.1f}", f"{row.prefill:.1f}", "measured" if row.measured else "estimate")
        for row in rows
    )
    columns = ("placement", "decode tok/s", "prefill tok/s", "")
    console.result([asdict(row) for row in rows], columns, cells, as_json=as_json)


def _measured(
    subject: "Subject",
    machine: "Machine",
    load_options: "LoadOptions",
    budget: float,
    target_tps: float | None,
) -> "list[TuningRow]":
    """Measure placements for `budget` seconds and remember the best, with what reaches the target rate; DoesNotFit where nothing does."""
    from mixcli.planning.target_tps import reaching
    from mixcli.planning.tune import sweep
    from mixcli.planning.tuning_cache import remember

    assert subject.path is not None
    request = load_options.request
    with console.progress("tuning") as bar:
        found = sweep(subject, machine, request, budget, bar.update)
        rows = [one.row() for one in found]
        remember(subject.path, machine, request, found[0].placement, rows)
        if target_tps is None:
            return rows
        reached = reaching(subject, machine, request, target_tps, found[0], bar.update)
        rows = [*(one.row() for one in reached), *rows]
        remember(subject.path, machine, request, found[0].placement, rows)
    if not reached:
        raise DoesNotFit(
            f"no plan of {subject.label} decodes {target_tps:g} tok/s here: the best reaches {found[0].decode:.1f}; "
            f"try --target-tps {found[0].decode:.3g}, a smaller model (mixcli search), or a machine with faster memory"
        )
    return rows


def _note_better_type(label: str, target: "Target") -> None:
    """Note the type of the same model that suits the machine better, with the command that downloads it."""
    from mixcli.pull.quant_choice import better_type, how_it_runs

    if (other := better_type(label, target)) is not None:
        name = label.rpartition(":")[0]
        console.note(
            f"{name}:{other.type} suits this machine better: {how_it_runs(other)}; download it with `mixcli pull {name}:{other.type}`"
        )
