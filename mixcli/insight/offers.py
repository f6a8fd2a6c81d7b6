"""What is offered in place of a model that is not installed: the file that the choice would take, its size and its rate here.

Nothing is asked of the network and nothing is measured: the dimensions of the catalog's models and the processor's known rates are enough.
"""

import shlex

from mixcli.errors import MixcliError, NotInstalled, UsageError
from mixcli.hub.choosing import Target, favourite, in_short, usual_types
from mixcli.hub.reference import Reference
from mixcli.insight.machines import target_of
from mixcli.wish import Wish
from profiles.file_choice import FileChoice
from profiles.memory import GIB


def with_offer(missing: NotInstalled, wish: Wish) -> NotInstalled:
    """Return the same error with what `mixcli pull` would bring for this wish; as it is where that is not known.

    Raises what planning raises for a wish that no model can meet, such as an unknown profile.
    """
    reference = None if missing.name is None else Reference.parse(missing.name)
    if reference is not None and not usual_types(reference.name):
        return missing  # a repository of the Hub, or the demo
    try:
        target = target_of(wish, measure=False)
    except UsageError:
        raise
    except MixcliError:  # a worker that does not answer, a library that does not start
        return missing
    where = "here" if wish.profile in (None, "auto") else f"on {wish.profile}"
    if reference is None:
        name, planned = favourite(target)
        small = "" if planned is None else "; `mixcli pull demo` makes a small one offline"
        return NotInstalled(missing.what, _brings("", name, planned, wish, where) + small, None)
    planned = target.choose(usual_types(reference.name))
    named = next((row for row in planned.rows if row.type == reference.type), None)
    if reference.type and (named is None or named.plan):
        step = f"`{_pull(str(reference), wish)}` brings {in_short(named, where) if named else 'it'}"
        return NotInstalled(missing.what, step, missing.name)
    what, row = missing.what, named or planned.rows[-1]
    if named is not None:
        what = f"{what} and does not fit {where} ({named.size / 1e9:.1f} GB)"
    elif planned.chosen is None:
        what = f"{what} and no type of it fits {where}: the smallest, {row.type}, has {row.size / 1e9:.1f} GB"
    return NotInstalled(what, _instead(reference.name, planned, target, wish, where), missing.name)


def _instead(name: str, planned: FileChoice, target: Target, wish: Wish, where: str) -> str:
    """Return which command brings the chosen type of a model, or the catalog's best where no type fits."""
    if planned.chosen is not None:
        return _brings(name, name, planned, wish, where)
    other, its_types = favourite(target)
    return _brings(other, other, its_types, wish, where)


def _brings(text: str, name: str, planned: FileChoice | None, wish: Wish, where: str) -> str:
    row = planned.chosen if planned else None
    if row is None:  # made here, and it runs anywhere
        return f"`mixcli pull {name}` makes a small one offline"
    short = in_short(row, where)
    return f"`{_pull(text, wish)}` brings {short if text else f'{name}:{short}'}"


def _pull(text: str, wish: Wish) -> str:
    return " ".join(filter(None, ("mixcli pull", text, options_of(wish))))


def options_of(wish: Wish) -> str:
    """Return a wish as the options that make it, quoted for a shell; empty where nothing was asked."""
    request = wish.request
    said: list[tuple[str, str | None]] = [
        ("--ctx", None if request.n_ctx is None else str(request.n_ctx)),
        ("--profile", None if wish.profile == "auto" else wish.profile),
        ("--vram", None if wish.vram is None else _size(wish.vram)),
        ("--ram", None if wish.ram is None else _size(wish.ram)),
        ("--kv", request.kv),
        *(("--worker", worker) for worker in wish.workers),
    ]
    words = [word for name, value in said if value is not None for word in (name, value)]
    return shlex.join([*words, *(["--from-disk"] if request.from_disk else [])])


def _size(n_bytes: int) -> str:
    return f"{n_bytes // GIB}GiB" if n_bytes % GIB == 0 and n_bytes else str(n_bytes)


__all__ = ["options_of", "with_offer"]
