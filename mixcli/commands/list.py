"""mixcli list: list the models on this machine."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.system.console import console
from mixcli.system.formatting import count, format_bytes


@click.command("list", cls=CheckedCommand)
@json_option
@common
def command(as_json: bool) -> None:
    """List the installed models, and GGUF files that other programs downloaded.

    GGUF files in the Hugging Face cache, in Ollama's store and in LM Studio's folders are used in place.
    """
    from mixcli.store.damaged import damaged
    from mixcli.store.licenses import license_of
    from mixcli.store.model_info import damaged_row
    from mixcli.store.model_info import row as row_of
    from mixcli.store.store import everything

    rows = [row_of(model) for model in everything()]
    broken = damaged()
    for one in broken:
        console.warn(one.sentence)
    if not rows and broken and not as_json:
        return
    console.result(
        [row.to_data() for row in (*rows, *map(damaged_row, broken))],
        ("MODEL", "SIZE", "PARAMETERS", "CONTEXT", "LICENSE", "LAST USED", "FROM"),
        [
            (
                row.model,
                format_bytes(row.size),
                f"{count(row.parameters)} ({count(row.active_parameters)} active)" if row.parameters else "?",
                str(row.context or "?"),
                license_of(row.license).short,
                (row.last_used or "never")[:10],
                row.keeper,
            )
            for row in rows
        ],
        as_json=as_json,
        empty="no models installed; run `mixcli pull` for the one that suits this machine, or `mixcli pull demo` for a small one that needs no network",
    )
