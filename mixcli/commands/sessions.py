"""mixcli sessions: list, search and export conversations of `mixcli chat`."""

from pathlib import Path

import click

from mixcli.commands.conflicts import Group
from mixcli.commands.options import common, json_option
from mixcli.errors import MixcliError, UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, moment


@click.group("sessions", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List, search, export, rename and remove conversations. Default: list."""
    if context.invoked_subcommand is None:
        context.invoke(list_, as_json=as_json)
    elif as_json:
        raise UsageError(f"pass --json after {context.invoked_subcommand}")


@command.command("list")
@json_option
@common
def list_(as_json: bool) -> None:
    """List the conversations, most recent first."""
    from mixcli.chat.database import Use
    from mixcli.chat.sessions import Sessions

    have = Sessions(Use.READ).all()
    data = [
        {"name": one.name, "model": one.model, "messages": one.n_messages, "created": one.created, "used": one.used}
        for one in have
    ]  # fmt: skip
    console.result(
        data,
        ("NAME", "MESSAGES", "LAST USED", "MODEL"),
        ((one.name, str(one.n_messages), moment(one.used), one.model) for one in have),
        as_json=as_json,
        empty="no conversations yet; start one with `mixcli chat`",
    )


@command.command("search")
@click.argument("words", nargs=-1, required=True)
@json_option
@common
def search(words: tuple[str, ...], as_json: bool) -> None:
    """Search for messages that contain all WORDS, newest first."""
    from dataclasses import asdict

    from mixcli.chat.database import Use
    from mixcli.chat.sessions import Sessions

    hits = Sessions(Use.READ).search(" ".join(words))
    console.result(
        [asdict(hit) for hit in hits],
        ("CONVERSATION", "WHEN", "WHO", "WHAT"),
        ((hit.session, moment(hit.created), hit.role, hit.snippet) for hit in hits),
        as_json=as_json,
        empty=f"no message matches {' '.join(words)!r}",
    )


@command.command("show", short_help="Print a conversation as markdown or JSON.")
@click.argument("name")
@json_option
@common
def show(name: str, as_json: bool) -> None:
    """Print conversation NAME as markdown or JSON: the branch that was viewed last."""
    from mixcli.chat.database import Use
    from mixcli.chat.export import text_of
    from mixcli.chat.sessions import Sessions

    store = Sessions(Use.READ)
    session = store.find(name)
    console.write(text_of(session, store.path(session.head), "json" if as_json else "markdown"))


@command.command("export", short_help="Save a conversation to a new file.")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@common
def export(name: str, path: Path) -> None:
    """Save conversation NAME to the new file PATH: JSON if it ends in .json, else markdown."""
    from mixcli.chat.database import Use
    from mixcli.chat.export import text_of
    from mixcli.chat.files import write_new
    from mixcli.chat.sessions import Sessions

    store = Sessions(Use.READ)
    session = store.find(name)
    form = "json" if path.suffix == ".json" else "markdown"
    write_new(path, text_of(session, store.path(session.head), form))


@command.command("rename")
@click.argument("name")
@click.argument("new_name")
@common
def rename(name: str, new_name: str) -> None:
    """Rename conversation NAME."""
    from mixcli.chat.conversation import name_of
    from mixcli.chat.database import Use
    from mixcli.chat.sessions import Sessions

    wanted, store = name_of(new_name), Sessions(Use.EDIT)
    console.line(store.rename(store.find(name).id, wanted))


@command.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Skip the confirmation.")
@common
def rm(names: tuple[str, ...], yes: bool) -> None:
    """Remove conversations with all their branches."""
    from mixcli.chat.database import Use
    from mixcli.chat.sessions import Sessions

    store = Sessions(Use.EDIT)
    found = [store.find(name) for name in names]
    listed = ", ".join(f"{one.name} ({counted(one.n_messages, 'message')})" for one in found)
    if not yes and not console.confirm(f"Remove {listed}?", otherwise=f"pass --yes to remove {listed}"):
        raise MixcliError("nothing was removed")
    for one in found:
        store.remove(one.id)
    console.note(f"removed {listed}")
