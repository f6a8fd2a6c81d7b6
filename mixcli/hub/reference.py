"""How a person writes which model is meant: a name of the catalog or a repository of the Hub, with a type and a revision.

mixtral   mixtral:Q4_K_M   org/repo   org/repo:Q4_K_M   org/repo@revision   org/repo:Q4_K_M@revision   org/repo/file.gguf
"""

import re
from dataclasses import dataclass

from mixcli.errors import UsageError

_ADDRESS = re.compile(r"^(?:https?://)?(?:huggingface\.co|hf\.co)/")
_BLOB = re.compile(r"/(?:blob|resolve)/([^/]+)/")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[\w][\w./-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """`name` is of the catalog or the store, or "org/repo"; the type is upper case; None where nothing was said."""

    name: str
    type: str | None = None
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read what a person wrote, also the address of a repository's or a file's page; UsageError when it names nothing."""
        rest, is_address = _ADDRESS.subn("", text.strip())
        rest = rest.removesuffix("/") if is_address else rest
        file = revision = None
        if match := _BLOB.search(rest):
            revision, file = match[1], rest[match.end() :].partition("?")[0]
            rest = rest[: match.start()]
        rest, at, said = rest.partition("@")
        said, _, late_type = said.partition(":")
        name, _, file_type = rest.partition(":")
        if at and not said:
            raise UsageError(f"{text!r} names no revision after the @; leave the @ out for the newest")
        if name.count("/") > 1 and name.endswith(".gguf"):
            owner, repo, file = name.split("/", 2)
            name = f"{owner}/{repo}"
        if not name:
            raise UsageError(f"{text!r} names no model; write a name such as demo, or demo:Q8_0")
        reference = cls(name, (file_type or late_type).upper() or None, said or revision, file)
        reference._check(text)
        return reference

    def _check(self, text: str) -> None:
        if "/" in self.name and (not _REPO.fullmatch(self.name) or ".." in self.name):
            raise UsageError(f"{text!r} is no name of a repository; they look like org/name")
        if self.revision and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise UsageError(f"{self.revision!r} is no revision; name a branch, a tag or a commit")

    @property
    def is_repo(self) -> bool:
        """Tell whether it names a repository of the Hub."""
        return "/" in self.name

    def __str__(self) -> str:
        return f"{self.name}:{self.type}" if self.type else self.name
