"""mixcli tune: benchmark placements around the plan and keep the best."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mixcli.commands.choices import rule_options
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option, model_option, planning_options, purpose_option
from mixcli.errors import DoesNotFit, UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from profiles.request import Purpose, Rule


@click.command("tune", cls=CheckedCommand)
@model_option
@rule_options
@planning_options
@purpose_option
@click.option(
    "--seconds",
    "budget",
    type=click.FloatRange(min=0),
    default=120,
    show_default=True,
    help="Start no new measurement after this many seconds.",
)
@click.option("--show", is_flag=True, help="Show earlier measurements only.")
@click.option(
    "--target-tps",
    type=click.FloatRange(min=0.01),
    metavar="N",
    help="Find the largest context and the best type that still decode N tok/s.",
)
@json_option
@common
def command(
    model: str | None,
    rule: "Rule | None",
    load_options: "LoadOptions",
    purpose: "Purpose",
    budget: float,
    show: bool,
    target_tps: float | None,
    as_json: bool,
) -> None:
    """Benchmark a few placements of a model on this machine and use the fastest from now on."""
    from mixcli.planning.machines import machine_of, target_of
    from mixcli.planning.offers import in_a_load, plan_or_offer
    from mixcli.planning.report import check_rule, subject_of
    from mixcli.planning.target_tps import reaching
    from mixcli.planning.tune import sweep
    from mixcli.planning.tuning_cache import evidence, remember
    from mixcli.pull.type_choice import better_type, how_it_runs

    request = replace(load_options.request, purpose=purpose)
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    target = target_of(replace(load_options, request=request), rule)
    subject = subject_of(model, None, target)
    check_rule(subject, target)
    if subject.path is None:
        raise UsageError(
            f"{subject.label} is not installed, so nothing can be measured; `mixcli pull {subject.label}` brings it"
        )
    machine = machine_of(*where, shapes=[subject.shape])
    if show:
        rows = evidence(subject.path, machine, request)
        if not rows:
            raise UsageError(f"no measurements of {subject.label} yet; run mixcli tune without --show")
    else:
        plan_or_offer(
            subject.label, subject.shape, machine, request, load_options, in_a_load
        )  # or its refusal
        with console.progress("tuning") as bar:
            found = sweep(subject, machine, request, budget, bar.update)
            rows = [one.row() for one in found]
            remember(subject.path, machine, request, found[0].placement, rows)
            if target_tps is not None:
                reached = reaching(subject, machine, request, target_tps, found[0], bar.update)
                rows = [*(one.row() for one in reached), *rows]
                remember(subject.path, machine, request, found[0].placement, rows)
        if target_tps is not None and not reached:
            raise DoesNotFit(
                f"no plan of {subject.label} decodes {target_tps:g} tok/s here, the best {found[0].decode:.1f}; "
                f"try --target-tps {found[0].decode:.3g}, a smaller model (mixcli search), or a machine with faster memory"
            )
        if (other := better_type(subject.label, target)) is not None:
            name = subject.label.rpartition(":")[0]
            console.note(
                f"{name}:{other.type} suits this machine better: {how_it_runs(other)}; download it with `mixcli pull {name}:{other.type}`"
            )
    if as_json:
        console.data(rows)
    else:
        shown = [
            (
                row["what"],
                f"{row['decode']:.1f}",
                f"{row['prefill']:.1f}",
                "measured" if row["measured"] else "estimate",
            )
            for row in rows
        ]
        console.table(("placement", "decode tok/s", "prefill tok/s", ""), shown)
