"""The model of a chat that another server has (--endpoint): found in the background, never loaded or placed by mixcli."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mixcli.chat.model_loader import GONE, READY, ChatModel
from mixcli.errors import MixcliError

if TYPE_CHECKING:
    from mixcli.client.endpoint import Endpoint

_AT = " at "  # between a model and its server, in a label


class RemoteModel(ChatModel):
    """A model of the server at `url`; `connect` looks for the named one, or the server's only one."""

    def __init__(self, connect: "Callable[[str | None], Endpoint]", url: str, name: str | None) -> None:
        super().__init__(name, f"{name}{_AT}{url}" if name else url)
        self._connect, self._url = connect, url
        self._endpoint: Endpoint | None = None

    def found(self) -> str:
        return self.label

    def lost(self) -> str:
        cause = "the server's own model process crashed"
        self._show(GONE)
        return cause

    def other(self, name: str) -> "RemoteModel":
        return RemoteModel(self._connect, self._url, name)

    def _held(self) -> "Endpoint":
        assert self._endpoint
        return self._endpoint

    def _load(self) -> None:
        try:
            found = self._connect(self.name)
            found.client.check()
            self.n_ctx = _context_length(found)
        except Exception as error:
            self._fail(error)
            return
        self._endpoint = found
        self._show(READY, label=f"{found.model}{_AT}{self._url}", share=1.0)


def split_label(label: str) -> tuple[str, str]:
    """Return the model and the address in the label of a conversation's model; the address is empty for one of this machine."""
    name, at, url = label.rpartition(_AT)
    return (name, url) if at and url.startswith(("http://", "https://")) else (label, "")


def _context_length(found: "Endpoint") -> int:
    """Return the context length in tokens, 0 where the server does not tell."""
    try:
        return found.client.models().get(found.model, 0)
    except MixcliError:
        return 0


__all__ = ["RemoteModel", "split_label"]
