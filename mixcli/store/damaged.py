"""Find damaged models of the store: missing files, wrong sizes, unreadable manifests."""

from dataclasses import dataclass
from pathlib import Path

from mixcli.store import manifest
from mixcli.store.manifest import Manifest
from mixcli.store.reference import composed
from mixcli.system.regular_file import read_regular
from mixcli.system.text import as_argument


@dataclass(frozen=True)
class Damaged:
    """A damaged folder of the store, with the reason; `manifest` is None if it cannot be read."""

    home: Path
    label: str
    words: str
    manifest: Manifest | None = None
    is_refused: bool = False  # the system does not let us read it, so it may be sound

    @property
    def sentence(self) -> str:
        """Return cause and next step in one sentence."""
        return f"{self.label}: {self.words}; {self.step}"

    @property
    def step(self) -> str:
        if self.manifest:
            return restored(self.manifest)
        return "change its permissions" if self.is_refused else f"remove it: mixcli rm {self.label}"


def damaged() -> list[Damaged]:
    """List what `store.models` leaves out, sorted by folder."""
    found = []
    for home in manifest.homes():
        about = manifest.read(home / manifest.NAME)
        name, _, file_type = home.name.rpartition("--")
        if about is None:
            refused = _refusal(home / manifest.NAME)
            unread = f"its manifest cannot be read ({refused or home})"
            found.append(Damaged(home, f"{name}:{file_type}", unread, is_refused=bool(refused)))
        elif words := next(filter(None, (_fault(home / file.path, file.size) for file in about.files)), None):
            found.append(Damaged(home, about.label, words, about))
    return found


def named(text: str) -> Damaged | None:
    """Return the damaged model that a label, or a name without its type, means; None where none is called so."""
    text = composed(text)
    name, _, file_type = text.rpartition(":")
    labels = {text, f"{name}:{file_type.upper()}"}
    have = damaged()
    exact = (one for one in have if composed(one.label) in labels)
    return next(exact, None) or next((one for one in have if _name(one) == text), None)


def restored(about: Manifest) -> str:
    """Return the commands that restore a model from its origin."""
    start = f"mixcli rm {about.label} && mixcli"
    if not about.origin.startswith("/"):
        return f"download it again: {start} pull {about.label}"
    origin = as_argument(about.origin)
    if Path(about.origin).is_dir():
        return f"rebuild it: {start} pull {origin} --quant {about.type} --name {about.name}"
    if about.keeper == "user":
        return (
            f"replace it with an intact file and import it again: {start} import {origin} --name {about.name}"
        )
    return f"import it again from a sound file: {start} import {origin} --copy --name {about.name}"


def _name(one: Damaged) -> str:
    return composed(one.label.rpartition(":")[0])


def _refusal(path: Path) -> str:
    """Return why the system does not let a file be read, with its path; empty where it does."""
    try:
        read_regular(path, 1)
    except PermissionError as error:
        return f"{path}: {error.strerror}"
    except OSError:
        pass
    return ""


def _fault(path: Path, size: int) -> str:
    try:
        have = path.stat().st_size
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    return "" if have == size else f"{path} has {have:,} of {size:,} bytes"
