"""mixcli rm: remove a model."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common
from mixcli.errors import MixcliError
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes


@click.command("rm", cls=CheckedCommand)
@click.argument("model", type=NAME_OR_PATH)
@click.option("-y", "--yes", is_flag=True, help="Skip the confirmation.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@common
def command(model: str, yes: bool, dry_run: bool) -> None:
    """Remove MODEL. Files that another model or program needs are kept."""
    from mixcli.store import removal

    plan = removal.plan_for(model)
    for path in plan.files:
        console.note(f"{'would delete' if dry_run else 'deletes'} {path}")
    for path, why in plan.kept:
        console.note(f"keeping {path}, {why}")
    if dry_run:
        console.line(f"{plan.label}: {format_bytes(plan.size)} would be freed")
        return
    if not yes:
        question = f"Remove {plan.label} ({format_bytes(plan.size)})?"
        if not console.confirm(question, otherwise=f"pass --yes to remove {plan.label}"):
            raise MixcliError("nothing was removed")
    removal.carry_out(plan)
    console.note(f"removed {plan.label}; {format_bytes(plan.size)} freed")
