"""mixcli pull: download a model."""

import os
from typing import TYPE_CHECKING

import click

from mixcli.commands.auto_imatrix import imatrix_file
from mixcli.commands.conflicts import PLACEMENT, CheckedCommand, given
from mixcli.commands.options import NAME_OR_PATH, common, json_option, planning_options
from mixcli.commands.quant_options import as_range, rule_options, show_types
from mixcli.errors import DoesNotFit, IntegrityError
from mixcli.system.console import console
from mixcli.system.formatting import about_time, format_bytes
from mixcli.system.signals import resumable

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.pull.pull_plan import PullJob, PullPlan
    from mixcli.pull.quant_choice import Target, TypeRow
    from mixcli.store.store import StoredModel
    from profiles.request import Rule


@click.command("pull", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH)
@click.option(
    "--quant",
    "--type",
    "output_type",
    metavar="QUANT",
    help="Quantize safetensors weights to this quant during the download: Q4_K_M, Q8_0, BF16…",
)
@click.option(
    "--imatrix",
    type=NAME_OR_PATH,
    metavar="FILE|auto",
    help="Importance matrix for --quant (see `mixcli imatrix`); better small quants. auto computes it with an installed quant of MODEL.",
)
@click.option(
    "--fit",
    is_flag=True,
    help="Quantize safetensors weights to the best file that fits on the GPUs (see `mixcli tailor`); this needs an installed quant of MODEL.",
)
@click.option(
    "--size", metavar="SIZE", help="With --fit: maximum size of the file. Default: what fits on the GPUs."
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of the model. Default: MODEL, or the folder's name.",
)
@rule_options
@planning_options
@click.option(
    "--repair/--no-repair",
    default=None,
    help="Merge the experts of a GGUF from December 2023. Default: ask in a terminal.",
)
@click.option("--keep-source", is_flag=True, help="Keep the downloaded files after quantizing or repairing.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show files, sizes, license, disk space and how the model will run here; download nothing. Not for the demo.",
)
@click.option(
    "--offline", is_flag=True, envvar="MIXCLI_OFFLINE", help="Do not use the network; list missing files."
)
@json_option
@common
@resumable()
def command(
    model: str | None,
    output_type: str | None,
    imatrix: str | None,
    fit: bool,
    size: str | None,
    name: str | None,
    rule: "Rule | None",
    load_options: "LoadOptions",
    repair: bool | None,
    keep_source: bool,
    dry_run: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Download and verify MODEL. Without MODEL, pull the one that suits this machine.

    MODEL is a name from `mixcli search` (mixtral, mixtral:Q4_K_M, demo), a repository on the Hugging Face Hub (org/repo, org/repo:QUANT,
    org/repo@REVISION), or a folder with a Mixtral or Mistral checkpoint in safetensors. Without a quant, the one that suits this machine is
    chosen; --dry-run shows how each would run. Rerun the command to resume an interrupted download.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once
    from mixcli.planning.machines import target_of
    from mixcli.pull.pull import Made, PullRequest, pull
    from mixcli.pull.pull_plan import PullPlan

    if fit:
        from mixcli.commands.fitted_pull import FittedPull

        fitted = FittedPull.of(model, name, imatrix, size, load_options, keep_source)
        if dry_run:
            _show(fitted.plan(), load_options, as_json=as_json)
        else:
            _report(fitted.carry_out(), True, as_json=as_json)
        return
    target = target_of(load_options, rule)
    wanted = PullRequest(
        model or _favorite(target, downloads=dry_run or output_type is not None or imatrix is not None),
        output_type and output_type.upper(),
        name,
        keep_source,
        dry_run,
        tuple(sorted(given(click.get_current_context()).intersection(PLACEMENT))),
        imatrix_file(imatrix, model or "", load_options),
    )
    with console.progress(f"pulling {wanted.text}") as bar:
        found = pull(wanted, target, bar.update)
    if isinstance(found, Made):
        _report(found.model, found.fresh, as_json=as_json)
        return
    if isinstance(found, PullPlan) or dry_run:
        _show(found if isinstance(found, PullPlan) else found.summary, load_options, as_json=as_json)
        return
    _report(_carried_out(found, repair), True, as_json=as_json)


def _favorite(target: "Target", *, downloads: bool) -> str:
    """Return the catalog's name for a machine; DoesNotFit where that is the demo and the options are those of a download."""
    from mixcli.pull.quant_choice import favorite

    name, planned = favorite(target)
    if planned is None and downloads:
        raise DoesNotFit(
            f"no downloadable model fits {target.where}; `mixcli pull {name}` makes a small one, which runs anywhere"
        )
    return name


def bring(text: str, load_options: "LoadOptions") -> str:
    """Pull a model as `mixcli pull TEXT` does, with its notes and bars, and return its label; without a text, the one that suits the machine."""
    from mixcli.planning.machines import target_of
    from mixcli.pull.pull import Made, PullRequest, pull
    from mixcli.pull.pull_plan import PullPlan
    from mixcli.pull.quant_choice import favorite

    target = target_of(load_options)
    name = text or favorite(target)[0]
    with console.progress(f"pulling {name}") as bar:
        found = pull(PullRequest(name), target, bar.update)
    assert not isinstance(found, PullPlan), "only a dry run has no more than that"
    stored = found.model if isinstance(found, Made) else _carried_out(found, None)
    _describe(stored, True)
    return stored.label


def _carried_out(job: "PullJob", repair: bool | None) -> "StoredModel":
    """Return the downloaded model, after printing what the download means."""
    _announce(job.summary)
    _agree(job, repair)
    with console.progress(f"pulling {job.summary.label}", unit="bytes") as bar:
        return job.carry_out(bar.update)


def _announce(summary: "PullPlan") -> None:
    """Print what the pull will do, before it starts."""
    console.note(f"{summary.label}: {summary.description}\nlicense: {summary.license}")
    console.note(f"{format_bytes(summary.download)} to download from {summary.origin}; {summary.fit}")
    others = ", ".join(map(_in_short, (row for row in summary.types if row.on_offer and not row.chosen)))
    reasons = [row.reason for row in summary.types if row.chosen]
    if words := "; ".join(filter(None, (*reasons, f"other quants: {others}" if others else ""))):
        console.note(words)
    for note in summary.notes:
        console.note(f"note: {note}")


def _in_short(row: "TypeRow") -> str:
    return f"{row.type} ({format_bytes(row.size)}, {f'{as_range(row.decode)} tok/s' if row.fits else 'too large'})"


def _agree(job: "PullJob", repair: bool | None) -> None:
    """Ask before a file is rewritten, if stdin is a terminal."""
    if not job.needs_repair or repair:
        return
    if (
        repair is None
        and console.can_ask()
        and console.confirm("Merge its experts after the download?", default=True, otherwise="pass --repair")
    ):
        return
    raise IntegrityError(
        f"{job.summary.label} stores one tensor per expert, which llama.cpp no longer supports; "
        "pass --repair to merge them without loss after the download"
    )


def _report(stored: "StoredModel", fresh: bool, *, as_json: bool) -> None:
    """Print which model is there now: as JSON to stdout, and in words to stderr."""
    if as_json:
        files = [str(path) for path in stored.parts]
        console.data({"model": stored.label, "path": str(stored.path), "fresh": fresh, "files": files})
    _describe(stored, fresh)
    console.note(f"try it: mixcli chat -m {stored.label}")


def _describe(stored: "StoredModel", fresh: bool) -> None:
    about = stored.manifest
    if about is None:
        console.note(
            f"{stored.label} is already installed, in the {stored.seen.keeper if stored.seen else 'store'}"
        )
        return
    what = f"{stored.label}, {format_bytes(about.size)}" + ("" if fresh else " (already installed)")
    console.note(f"{what}\n{about.description}\nlicense: {about.license_words}")


def _show(summary: "PullPlan", load_options: "LoadOptions", *, as_json: bool) -> None:
    """Print what a dry run found."""
    console.page(summary.to_data(load_options.profile), lambda: _print(summary), as_json=as_json)


def _print(summary: "PullPlan") -> None:
    if summary.files:  # unknown without a network
        console.table(
            ("FILE", "SIZE", "DOWNLOADED"),
            [(file.name, format_bytes(file.size), format_bytes(file.here)) for file in summary.files],
        )
    rows = [
        ("model", summary.label),
        ("from", summary.origin),
        ("license", summary.license),
        ("download", format_bytes(summary.download)),
        ("disk", f"{format_bytes(summary.disk)} at most"),
        ("result", f"{format_bytes(summary.size)}, {about_time(summary.seconds)}" if summary.seconds else ""),
        ("here", summary.fit),
        *(("note", note) for note in summary.notes),
    ]
    console.table(("", ""), [row for row in rows if row[1]])
    console.line()
    show_types(summary.types)
