"""mixcli verify: compare installed models with their checksums."""

from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common, json_option
from mixcli.errors import IntegrityError, MixcliError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.store.damaged import Damaged
    from mixcli.store.store import StoredModel
    from mixcli.store.verification import Verdict


@click.command("verify", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH)
@json_option
@common
def command(model: str | None, as_json: bool) -> None:
    """Read every byte of MODEL, or of all models in the store, and compare the checksums."""
    from mixcli.store import damaged, store
    from mixcli.store.verification import verify
    from mixcli.system.os_errors import explain

    models = [store.find(model)] if model else store.models()
    broken = [] if model else damaged.damaged()
    verdicts: list[tuple[StoredModel, Verdict]] = []
    unread: list[tuple[damaged.Damaged, MixcliError]] = []
    for stored in models:
        try:
            with console.progress(f"checking {stored.label}", unit="bytes") as bar:
                verdicts += [(stored, verdict) for verdict in verify(stored, bar.update)]
        except OSError as error:  # the others are checked anyway
            error.filename = error.filename or str(stored.path)
            why = explain(error)
            unread.append((damaged.Damaged(stored.path, stored.label, str(why)), why))
    words = {True: "sound", False: "DAMAGED"}
    rows = [
        (stored.label, at.path.name, words[at.is_sound] if at.expected else "no checksum")
        for stored, at in verdicts
    ]
    rows += [(one.label, one.home.name, "DAMAGED") for one in broken]
    rows += [(one.label, one.home.name, "UNREADABLE") for one, _ in unread]
    data = _data(verdicts, [*broken, *(one for one, _ in unread)])
    console.result(data, ("MODEL", "FILE", "STATE"), rows, as_json=as_json)
    if wrong := [(stored, at) for stored, at in verdicts if not at.is_sound]:
        stored, at = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise IntegrityError(
            f"{at.path} of {stored.label}{more} is damaged: its SHA-256 is {at.found[:16]}… and must be {at.expected[:16]}…; "
            f"{damaged.restored(stored.manifest) if stored.manifest else 'replace the file'}"
        )
    if broken:
        raise IntegrityError(" | ".join(one.sentence for one in broken))
    if unread:
        raise unread[0][1]


def _data(
    verdicts: "list[tuple[StoredModel, Verdict]]", broken: "list[Damaged]"
) -> list[dict[str, str | bool]]:
    """Return what --json prints: an object for each file, then one for each model that cannot be read."""
    read: list[dict[str, str | bool]] = [
        {
            "model": stored.label,
            "path": str(at.path),
            "sha256": at.found,
            "expected": at.expected,
            "sound": at.is_sound,
        }
        for stored, at in verdicts
    ]
    unread: list[dict[str, str | bool]] = [
        {
            "model": one.label,
            "path": str(one.home),
            "sha256": "",
            "expected": "",
            "sound": False,
            "problem": one.words,
        }
        for one in broken
    ]
    return read + unread
