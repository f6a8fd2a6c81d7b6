"""What the Hub's refusals mean for a person, and which of them are worth another try.

Texts of other libraries are not passed on: they hold signed addresses and sometimes tokens.
"""

import re
from dataclasses import dataclass

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mixcli.errors import MixcliError, NotReachable, UsageError

BUSY = {408, 425, 429, 500, 502, 503, 504}
_SECRET = re.compile(r"hf_[A-Za-z0-9]+|(?<=\?)\S+|Bearer \S+")

# What the network may throw; nothing else that huggingface_hub raises is a matter of another try
Failure = (
    httpx2.RequestError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
)


@dataclass(frozen=True)
class Place:
    """What was asked for: a repository, a revision of it, a file in it."""

    repo: str
    revision: str = "main"
    file: str = ""

    @property
    def page(self) -> str:
        """Give the address of the repository's page."""
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def host(self) -> str:
        """Give the Hub's name and port."""
        return self.page.split("/")[2]


def is_transient(error: Exception) -> bool:
    """Tell whether the same request may work later: the network, a busy server, a rate limit."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.TooManyRedirects | httpx2.DecodingError):
        return False
    return isinstance(error, httpx2.TransportError)


def is_silent(error: Exception) -> bool:
    """Tell whether no answer came at all."""
    return isinstance(error, httpx2.TransportError)


def retry_after(error: Exception) -> float | None:
    """Give the seconds after which a server wants to be asked again."""
    if isinstance(error, HfHubHTTPError):
        value = error.response.headers.get("Retry-After", "").strip()
        if value.isdigit():
            return float(value)
    return None


def explain(error: Exception, place: Place) -> MixcliError:
    """Say in one sentence what a failure means; the class tells the exit code."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    kind, sentence = next(
        (
            (kind, sentence)
            for class_, code, kind, sentence in _MEANINGS
            if isinstance(error, class_) and code in {0, status}
        ),
        (NotReachable, "the connection to {host} broke ({error}); {kept}"),
    )
    wait = retry_after(error)
    return kind(
        sentence.format(
            repo=place.repo,
            revision=place.revision,
            file=place.file or "such file",
            page=place.page,
            host=place.host,
            status=status,
            wait=f"in {wait:.0f} s" if wait is not None else "in some minutes",
            detail=redacted(str(error)) or "no connection",
            error=type(error).__name__,
            kept="what is here is kept: run the same command again",
        )
    )


# (what was raised, its HTTP status or 0 for any, what it is for us, the sentence); the first row that matches counts
_MEANINGS: tuple[tuple[type[Exception], int, type[MixcliError], str], ...] = (
    (OfflineModeIsEnabled, 0, NotReachable, "{repo} is not complete on this machine, and --offline (or HF_HUB_OFFLINE) keeps mixcli from asking the Hub"),
    (GatedRepoError, 0, NotReachable, "{repo} is gated: accept its terms at {page}, log in with `hf auth login`, and pull again"),
    (DisabledRepoError, 0, NotReachable, "{repo} was disabled by the Hub; choose another repository"),
    (RepositoryNotFoundError, 0, NotReachable, "there is no repository {repo}, or it is private; check the name, or log in with `hf auth login`"),
    (RevisionNotFoundError, 0, UsageError, "{repo} has no revision {revision!r}; its page lists them: {page}"),
    (RemoteEntryNotFoundError, 0, UsageError, "{repo} has no file {file!r}; its page lists them: {page}/tree/main"),
    (HfHubHTTPError, 401, NotReachable, "the Hub does not accept the token that was sent for {repo}; log in again with `hf auth login`"),
    (HfHubHTTPError, 403, NotReachable, "the Hub refuses {repo} to this account (403); look at {page}"),
    (HfHubHTTPError, 404, UsageError, "{repo} is not at {host} (404); check the name and HF_ENDPOINT"),
    (HfHubHTTPError, 429, NotReachable, "the Hub limits the rate of requests (429, rate limited); try again {wait}, or log in for a higher limit; {kept}"),
    (HfHubHTTPError, 0, NotReachable, "the Hub answers {status} for {repo}; {kept}"),
    (httpx2.ConnectTimeout, 0, NotReachable, "{host} cannot be reached (no answer); check the network; {kept}"),
    (httpx2.TimeoutException, 0, NotReachable, "{host} stopped answering; {kept}"),
    (httpx2.ConnectError, 0, NotReachable, "{host} cannot be reached ({detail}); check the network; {kept}"),
    (httpx2.TooManyRedirects, 0, NotReachable, "{host} sends from one address to the next without an end; do not trust this server"),
)  # fmt: skip


def redacted(text: str) -> str:
    """Take tokens and the query parts of addresses out of a text."""
    return _SECRET.sub("[redacted]", text)
