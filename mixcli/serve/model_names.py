"""The models of a port by name: their labels with and without the quant, file names of files, and aliases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from mixcli.errors import UsageError
from mixcli.serve.eviction import Ledger
from mixcli.serve.refusal import Refusal
from mixcli.system.text import nearest, shown

LISTED = 20  # names in one message
MAX_NAME = 128  # characters of an alias


@dataclass(frozen=True)
class ServedModel:
    """A model of the port: its label, the other names that clients may use, and what its plan says.

    `size` is the bytes of its file, `n_ctx` its context length in tokens, `needs` what it takes of each device. One that `is_kept` is
    loaded at the start and never unloaded.
    """

    label: str
    size: int = 0
    n_ctx: int = 0
    needs: Ledger = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    is_kept: bool = False

    @property
    def short_names(self) -> tuple[str, ...]:
        """Return the label without its quant; of a file that was named by its path, its name with and without its suffix."""
        if self.label.lower().endswith(".gguf"):
            name = self.label.rpartition("/")[2]
            return name, name[: -len(".gguf")]
        return tuple(name for name in (self.label.rpartition(":")[0],) if name)


class ServedModels:
    """Finds models by name, in any case: labels first, then aliases, then short names, of which the first model's counts."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)
        self._by_name: dict[str, ServedModel] = {}
        labels = ((one.label, one) for one in models)
        aliases = ((name, one) for one in models for name in one.aliases)
        short_names = ((name, one) for one in models for name in one.short_names)
        for name, model in chain(labels, aliases, short_names):
            self._by_name.setdefault(name.casefold(), model)

    def find(self, name: str) -> ServedModel | None:
        """Return the model of a name, None where there is none."""
        return self._by_name.get(name.casefold())

    def unknown(self, name: str) -> Refusal:
        """Return the refusal of a name that no model has, with the one that is nearest."""
        near = nearest(name, self._by_name)
        found = self._by_name[near] if near else None
        hint = f"did you mean {found.label}? " if found else ""
        message = f"model {shown(name)} not found; {hint}this server has {self.listed()}"
        return Refusal(404, "invalid_request_error", message, "model_not_found", param="model")

    def unnamed(self) -> Refusal:
        """Return the refusal of a request that names no model."""
        message = (
            f'the request names no model, and this server has several; set "model" to one of {self.listed()}'
        )
        return Refusal(400, "invalid_request_error", message, "missing_required_parameter", param="model")

    def listed(self) -> str:
        """Return the labels in one line."""
        labels = [model.label for model in self.models]
        more = f" and {len(labels) - LISTED} more (GET /v1/models)" if len(labels) > LISTED else ""
        return ", ".join(labels[:LISTED]) + more


def aliases_by_label(said: Sequence[str], served_models: ServedModels) -> Mapping[str, tuple[str, ...]]:
    """Return the aliases of each model by its label, from texts such as gpt-4o=mixtral:Q4_K_M; UsageError for what is not one."""
    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for text in said:
        alias, mark, name = text.partition("=")
        if not (mark and alias and name) or not alias.isprintable() or len(alias) > MAX_NAME:
            raise UsageError(f"invalid alias {shown(text)!r}: use NAME=MODEL, such as gpt-4o=mixtral")
        model = served_models.find(name)
        if model is None:
            raise UsageError(
                f"--alias {shown(text)}: {shown(name)} is not served; this server has {served_models.listed()}"
            )
        if _is_taken(alias, model, served_models) or alias.casefold() in seen:
            raise UsageError(f"--alias {shown(text)}: the name {shown(alias)} is taken; choose another")
        seen.add(alias.casefold())
        found[model.label] = (*found.get(model.label, ()), alias)
    return found


def _is_taken(alias: str, model: ServedModel, served_models: ServedModels) -> bool:
    """Return whether an alias is the name of another model; a short name that both have may go to either."""
    name, holder = alias.casefold(), served_models.find(alias)
    if holder is None:
        return False
    return name == holder.label.casefold() or name not in map(str.casefold, model.short_names)
