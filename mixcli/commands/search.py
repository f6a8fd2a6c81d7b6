"""mixcli search: search the catalog."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option, planning_options
from mixcli.commands.quant_options import rule_options
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.catalog import CatalogEntry
    from profiles.machine import Machine
    from profiles.quant_choice import FileChoice
    from profiles.request import Rule

# what a rate is marked with, and the note on all that have the mark
TYPICAL, BUSY = "typical", "busy machine"
NOTES = {
    TYPICAL: "some of these rates are typical, not measured on this CPU; `mixcli plan MODEL` measures them",
    BUSY: "some of these rates are too low, because other programs ran when this CPU was measured; `mixcli doctor` measures it again",
}


@click.command("search", cls=CheckedCommand)
@click.argument("words", nargs=-1)
@rule_options
@planning_options
@json_option
@common
def command(words: tuple[str, ...], rule: "Rule | None", load_options: "LoadOptions", as_json: bool) -> None:
    """List catalog models, or those that match WORDS, and the quant of each that suits this machine.

    PARAMETERS is the total and, for a mixture of experts, those active per token. FORMAT is the prompt format; v1 to v15 are Mistral's own. Models with vision (`mixcli show`) read only text here. The network is not used. Any repository on the Hugging Face Hub can be pulled as org/repo too.
    """
    from mixcli.planning.machines import target_of
    from mixcli.pull.quant_choice import choices_of, rows_of
    from mixcli.store.catalog import catalog
    from mixcli.store.store import models

    have = {model.manifest.name for model in models() if model.manifest}
    wanted = [word.lower() for word in words]
    found = [
        entry
        for entry in catalog().values()
        if all(
            word in f"{entry.name} {entry.description} {entry.kind} {_kind(entry)} {entry.alignment}".lower()
            for word in wanted
        )
    ]
    # nothing is measured for a list: what was measured before is used
    target = target_of(load_options, rule, measure=False)
    planned = choices_of(found, target)
    machine = target.machine_for(())
    is_here = load_options.profile in (None, "auto")
    place = "THIS MACHINE" if is_here else load_options.profile
    marks = [_mark(one, machine) if is_here else "" for one in planned]
    data = [
        {
            **asdict(entry),
            "license_words": entry.license_words,
            "fits": one.chosen.type if one.chosen else _made_here(entry),
            "here": entry.name in have,
            "usual_rates": mark == TYPICAL,
            "busy_rates": mark == BUSY,
            "choice": [asdict(row) for row in rows_of(one, one.chosen.type if one.chosen else None)],
        }
        for entry, one, mark in zip(found, planned, marks, strict=True)
    ]
    console.result(
        data,
        ("MODEL", "PARAMETERS", "CONTEXT", "KIND", "FORMAT", "LICENSE", f"SUITS {place}"),
        [
            (
                *_facts(entry),
                _suits(entry, one)
                + (f" ({mark})" if mark else "")
                + (", installed" if entry.name in have else ""),
            )
            for entry, one, mark in zip(found, planned, marks, strict=True)
        ],
        as_json=as_json,
        empty=f"no catalog model matches {' '.join(words)}; any org/repo on the Hub can be pulled too",
    )
    if not as_json:
        for note in (NOTES[mark] for mark in NOTES if mark in marks):
            console.note(note)


def _facts(entry: "CatalogEntry") -> tuple[str, ...]:
    """Return the columns that say what a model is."""
    from mixcli.store.licenses import license_of

    active = f"/{entry.active:g}B" if entry.active < entry.parameters else ""
    return (
        entry.name,
        f"{entry.parameters:g}B{active}",
        str(entry.context),
        _kind(entry),
        entry.prompt.partition(" (")[0].removeprefix("Mistral "),
        license_of(entry.license).short,
    )


def _kind(entry: "CatalogEntry") -> str:
    """Return what a person picks a model by: that it is uncensored or thinks before it answers, else its kind."""
    if entry.alignment == "uncensored":
        return entry.alignment
    return "reasoning" if entry.reasoning else entry.kind


def _mark(planned: "FileChoice", machine: "Machine") -> str:
    """Return how the rates that are shown were not measured on this processor, where it computes with the type that is chosen."""
    row = planned.chosen
    if row is None or row.plan is None or row.is_on_gpus:
        return ""
    origins = machine.rates.origins(row.shape.types)
    return BUSY if "busy" in origins else TYPICAL if None in origins else ""


def _suits(entry: "CatalogEntry", planned: "FileChoice") -> str:
    """Return the type that is chosen and how fast it decodes."""
    if planned.chosen is None:
        return _made_here(entry) or (planned.why if planned.rows else "nothing")
    rates = planned.chosen.plan.estimate if planned.chosen.plan else None
    return f"{planned.chosen.type}, {rates.shown(rates.decode)} tok/s" if rates else planned.chosen.type


def _made_here(entry: "CatalogEntry") -> str | None:
    """Return the one type of the demo, which is made on this machine and runs anywhere."""
    return entry.default_type if entry.builder == "demo" else None
