"""Parse model references: a catalog name or a Hub repository, with a type and a revision.

mixtral   mixtral:Q4_K_M   org/repo   org/repo:Q4_K_M   org/repo@revision   org/repo:Q4_K_M@revision   org/repo/file.gguf

What begins with a slash, a dot or ~, or ends in .gguf, is a path; anything else is a name first.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mixcli.errors import UsageError
from mixcli.system.text import clean

# compiled when they are first used: a model of the store is found without them
_ADDRESS = r"^(?:https?://)?(?:huggingface\.co|hf\.co)/"
_BLOB = r"/(?:blob|resolve)/([^/]+)/"
_REPO = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
_TYPE = r"[A-Za-z0-9][\w.+/-]{0,95}"
MAX_TEXT = 4096  # characters
MAX_NAME = 128  # bytes of a name in the store; it becomes part of file names
FORBIDDEN = ':@\\<>"|?*'  # types and revisions begin with some of them, folders end with another, and Windows' file systems have none
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
_REVISION = r"[\w][\w./-]{0,127}"


class Reference(NamedTuple):
    """`name` is of the catalog or the store, or "org/repo"; the type is upper case; None where nothing was said."""

    name: str
    type: str | None = None
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read what a person wrote, also the address of a repository's or a file's page; UsageError when it names nothing."""
        check_text(text)
        rest, is_address = re.subn(_ADDRESS, "", text.strip())
        rest = rest.removesuffix("/") if is_address else rest
        file = revision = None
        if match := re.search(_BLOB, rest):
            revision, file = match[1], rest[match.end() :].partition("?")[0]
            rest = rest[: match.start()]
        rest, at, said = rest.partition("@")
        said, _, late_type = said.partition(":")
        name, _, file_type = rest.partition(":")
        if at and not said:
            raise UsageError(f"{shown(text)} has no revision after the @; remove the @ for the newest")
        if name.count("/") > 1 and name.endswith(".gguf"):
            owner, repo, file = name.split("/", 2)
            name = f"{owner}/{repo}"
        if not file_type and not late_type and ":" in rest + said:
            raise UsageError(f"{shown(text)} has no quant after the colon; did you mean {name or 'demo'}?")
        if not name:
            raise UsageError(f"{shown(text)} is not a model name; use a name such as demo, or demo:Q8_0")
        reference = cls(name, (file_type or late_type).upper() or None, said or revision, file)
        reference._check(shown(text))
        return reference

    def _check(self, text: str) -> None:
        if "/" in self.name and (not re.fullmatch(_REPO, self.name) or ".." in self.name):
            hint = f"; did you mean {self.name.strip('/')}?" if _is_one_name(self.name.strip("/")) else ""
            raise UsageError(f"{text} is not a repository name; use the form org/name{hint}")
        if self.type and not re.fullmatch(_TYPE, self.type):
            raise UsageError(f"{text} has an invalid quant {shown(self.type)}; use one such as Q4_K_M")
        if self.revision and (not re.fullmatch(_REVISION, self.revision) or ".." in self.revision):
            raise UsageError(f"{shown(self.revision)} is not a valid revision; use a branch, tag or commit")

    @property
    def is_repo(self) -> bool:
        """Return whether it names a repository of the Hub."""
        return "/" in self.name

    def __str__(self) -> str:
        return f"{self.name}:{self.type}" if self.type else self.name


def check_text(text: str) -> None:
    """Raise UsageError for what cannot name a model: nothing, too much, or invisible characters."""
    if not text.strip():
        raise UsageError("the model's name is empty; use a name such as demo, or a path such as ./model.gguf")
    if len(text) > MAX_TEXT:
        raise UsageError(f"the model's name is {len(text):,} characters long; the limit is {MAX_TEXT:,}")


def is_path(text: str) -> bool:
    """Return whether a text is certainly a path: it says so by a slash, a dot or ~ in front, or by .gguf at its end."""
    return text.lower().endswith(".gguf") or text.startswith((".", "~", os.sep))


def is_there(path: Path) -> bool:
    """Return whether a path exists; False for one that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_name(name: str) -> str:
    """Return a name that a model can have in the store, in Unicode's composed form; UsageError for any other.

    It can be typed, is not taken for a path or a type, and names the same file on every file system.
    """
    name = composed(name)
    wrong = next((words for is_wrong, words in _WRONG if is_wrong(name)), None)
    if wrong:
        raise UsageError(f"the name {shown(name)} {wrong}; use letters, digits, dots and hyphens")
    return name


def usable_name(name: str) -> str:
    """Return a name made out of a file's or folder's, with what a name cannot have replaced by hyphens."""
    plain = "".join(c if c.isprintable() and c not in FORBIDDEN + "/" else "-" for c in composed(name))
    plain = plain.strip(" .-~")
    while len(plain.encode("utf-8", "replace")) > MAX_NAME:
        plain = plain[:-1]
    plain = plain.removesuffix(".gguf").rstrip(" .")
    return f"model-{plain}".rstrip("-") if not plain or _is_reserved(plain) else plain


def composed(name: str) -> str:
    """Return a name as it is compared and stored: a letter and its accent may come as one character or as two, and look alike."""
    if name.isascii():
        return name
    import unicodedata

    return unicodedata.normalize("NFC", name)


def are_twins(name: str, other: str) -> bool:
    """Return whether two different names would be one file where upper and lower case are the same."""
    return name != other and composed(name.casefold()) == composed(other.casefold())


def shown(text: str) -> str:
    """Return a text in quotes as a message shows it, cut where it is long."""
    text = clean(text)
    return repr(text if len(text) <= 120 else f"{text[:60]}…{text[-40:]}")


def _is_reserved(name: str) -> bool:
    """Return whether a part of a name is a device on Windows, with any ending."""
    return any(part.partition(".")[0].strip().upper() in RESERVED for part in name.split("/"))


def _is_one_name(text: str) -> bool:
    return bool(text) and "/" not in text and text.isprintable()


# (what must not be, the words for it)
_WRONG: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda name: not name.strip(), "is empty"),
    (lambda name: len(name.encode("utf-8", "replace")) > MAX_NAME, f"is longer than {MAX_NAME} bytes"),
    (lambda name: not name.isprintable(), "has control characters"),
    (lambda name: name != name.strip(), "begins or ends with a space"),
    (lambda name: name.endswith("."), "ends with a dot"),
    (_is_reserved, "is the name of a device on Windows"),
    (
        lambda name: any(c in name for c in FORBIDDEN),
        f"has one of the characters {FORBIDDEN}",
    ),
    (lambda name: name.startswith((".", "~", "-", "/")), "begins like a path or an option"),
    (lambda name: name.lower().endswith(".gguf"), "ends with a file extension"),
    (lambda name: "/" in name and not re.fullmatch(_REPO, name), "looks like a path"),
)
