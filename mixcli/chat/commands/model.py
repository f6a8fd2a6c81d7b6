"""Slash commands about the model: choose it, choose a profile, show the plan and the expert use."""

from collections.abc import Iterable, Sequence

from mixcli.chat.model_loader import ChatModel
from mixcli.chat.session import ChatSession
from mixcli.chat.view.toolbar import bar, devices
from mixcli.client.openai import HostClient
from mixcli.errors import UsageError
from mixcli.system.console import console

TOP = 3  # experts that are named for each layer
MAX_DRAWN = 16  # experts that are drawn; of more only those that are used most


def model(chat: ChatSession, rest: str) -> None:
    """Show which model answers, or switch to another."""
    if not rest:
        console.note(
            f"{chat.model.label}, {chat.model.state.status}, context {f'{chat.model.n_ctx:,}' if chat.model.n_ctx else '?'} tokens"
        )
        return
    _use(chat, chat.model.other(rest))


def profile(chat: ChatSession, rest: str) -> None:
    """Show which profile is used, or place the model by another one."""
    if not rest and chat.model.profile:
        console.note(f"{chat.model.profile} (`mixcli profiles list` shows others)")
        return
    from mixcli.planning.machines import absent_device, profile_of

    other = chat.model.placed_by(rest)
    gpus = () if rest == "auto" else profile_of(rest).machine().gpus  # refuses a name that is not valid
    if absent := absent_device([gpu.name for gpu in gpus], rest):
        raise UsageError(
            f"the profile {rest} plans with {absent}, which this machine does not have; "
            f"estimate with `mixcli plan --profile {rest}`, or use /profile auto"
        )
    _use(chat, other)


def plan(chat: ChatSession, _rest: str) -> None:
    """Show the placement of the model, and llama.cpp's flags for it."""
    from mixcli.planning.report import flags

    order = chat.model.order()
    for row in devices(order.expected):
        console.note(row)
    console.note(f"llama.cpp {flags(order.placement)}")
    if rate := chat.model.estimated_decode():
        console.note(f"estimate: {rate:.1f} tok/s (not measured)")


def experts(chat: ChatSession, _rest: str) -> None:
    """Show how the last answer was spread over the experts."""
    chat.conversation.last_answer()
    client = chat.loaded().client
    if not isinstance(client, HostClient):
        raise UsageError(f"{chat.model.label} does not report its experts; only models on this machine do")
    routing = client.experts(chat.conversation.to_messages())
    if not routing.n_expert:
        raise UsageError("this model has no experts")
    for row in spread(routing.layers, routing.n_expert, routing.n_expert_used):
        console.note(row)


def spread(layers: Sequence[Sequence[int]], n_expert: int, n_used: int) -> list[str]:
    """Draw each expert's share over all layers, of many only the most used, then every layer's favorites; dense layers have none."""
    total = [sum(layer[i] for layer in layers) for i in range(n_expert)]
    every = sum(total) or 1
    rows = [f"{n_used} of {n_expert} experts per token; uniform use would be {100 / n_expert:.1f} % each"]
    shown = (
        range(n_expert)
        if n_expert <= MAX_DRAWN
        else sorted(range(n_expert), key=lambda i: -total[i])[:MAX_DRAWN]
    )
    rows += [
        f"expert {i:<3} {bar(total[i] / (max(total) or 1))} {100 * total[i] / every:5.1f} %" for i in shown
    ]
    if n_expert > MAX_DRAWN:
        others = every - sum(total[i] for i in shown)
        rows.append(
            f"{n_expert - MAX_DRAWN} others {100 * others / every:.1f} % together, {total.count(0)} experts never used"
        )
    for number, layer in enumerate(layers):
        here = sum(layer)
        best = [
            i for i in sorted(range(n_expert), key=lambda i: -layer[i])[:TOP] if 200 * layer[i] >= here
        ]  # not 0 %
        if here:
            rows.append(
                f"layer {number:<3} " + ", ".join(f"{i}: {100 * layer[i] / here:.0f} %" for i in best)
            )
    return rows


def model_names(chat: ChatSession) -> Iterable[str]:
    """List the models to switch to, for the Tab key."""
    return chat.model.other_names()


def profile_names(_chat: ChatSession) -> Iterable[str]:
    """List the profiles, for the Tab key."""
    from mixcli.planning.machines import own_profiles
    from profiles.profile_files import profile_names as known

    return ["auto", *known(own_profiles())]


def _use(chat: ChatSession, other: ChatModel) -> None:
    chat.use(other)
    console.note(f"(loading {other.label}; the conversation continues with it)")
