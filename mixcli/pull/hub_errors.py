"""Translate errors of the Hub and the network into messages, exit codes and whether to retry.

Texts of other libraries are not passed on: they hold signed addresses and sometimes tokens.
"""

import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

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

from mixcli.errors import IntegrityError, MixcliError, NotReachable, UsageError
from mixcli.pull.hub_http import Mismatch, Untrusted, proxy_of

LONGEST_WAIT = 86_400.0  # seconds that a server may ask for and that are still said
_SECRET = re.compile(r"hf_[A-Za-z0-9]+|(?<=\?)\S+|Bearer \S+|(?<=//)[^/\s@]+(?=@)")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")

# What the network may throw; nothing else that huggingface_hub raises is a matter of another try
Failure = (
    httpx2.RequestError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
)


@dataclass(frozen=True)
class Place:
    """The target of a request: a repository, its revision, a file in it."""

    repo: str
    revision: str = "main"
    file: str = ""

    @property
    def page(self) -> str:
        """Return the address of the repository's page."""
        return f"{constants.ENDPOINT}/{self.repo}"

    @property
    def host(self) -> str:
        """Return the Hub's name and port."""
        return self.page.split("/")[2]


def retry_after(error: Exception) -> float | None:
    """Return the seconds after which a server wants to be asked again: a number or a date; None where it says neither."""
    if not isinstance(error, HfHubHTTPError):
        return None
    value = error.response.headers.get("Retry-After", "").strip()[:64]
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def explain(error: Exception, place: Place) -> MixcliError:
    """Return in one sentence what a failure means; the class tells the exit code."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    url = _url(error)
    proxy, variable = (url and proxy_of(url)) or ("", "")
    host = (f"{url.host}:{url.port}" if url.port else url.host) if url else place.host
    kind, sentence = _of_the_way(error, proxy) or next(
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
            host=f"{host} (through the proxy {proxy})" if proxy and "{proxy}" not in sentence else host,
            proxy=proxy,
            variable=variable,
            status=status,
            wait=f"in {wait:.0f} s" if wait is not None and wait <= LONGEST_WAIT else "later",
            detail=_detail(error),
            error=type(error).__name__,
            kept="downloaded data is kept: rerun the command to resume"
            if place.file
            else "rerun the command",
        )
    )


def _of_the_way(error: Exception, proxy: str) -> tuple[type[MixcliError], str] | None:
    """Return what went wrong before the Hub itself could answer: certificates, names, proxies; None for anything else."""
    sentence = next((sentence for applies, sentence in _ON_THE_WAY if applies(error, proxy)), None)
    return (NotReachable, sentence) if sentence else None


def _wants_login(error: Exception, _proxy: str) -> bool:
    if isinstance(error, httpx2.ProxyError):
        return str(error).startswith("407")
    return isinstance(error, HfHubHTTPError) and error.response.status_code == 407


# (does it apply to an error, and a proxy's address or ""; the sentence); the first row that applies counts
_ON_THE_WAY: tuple[tuple[Callable[[Exception, str], bool], str], ...] = (
    (lambda error, _: cause_of(error, ssl.SSLCertVerificationError) is not None, "the certificate of {host} is not trusted ({detail}); if a proxy intercepts TLS, add its CA with SSL_CERT_FILE, else check the clock and HF_ENDPOINT"),
    (lambda error, _: speaks_no_tls(error), "{host} does not speak https ({detail}); check HF_ENDPOINT"),
    (_wants_login, "the proxy {proxy} requires a login (407); set {variable} to http://user:password@host:port"),
    (lambda error, _: isinstance(error, httpx2.ProxyError), "the proxy {proxy} blocks requests to the Hub ({detail}); check {variable} and NO_PROXY"),
    (lambda error, proxy: bool(proxy) and isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError), "the proxy {proxy} cannot be reached ({detail}); check {variable}, or unset it"),
    (lambda error, _: cause_of(error, socket.gaierror) is not None, "cannot resolve the name of {host} ({detail}); check the network and HF_ENDPOINT; {kept}"),
)  # fmt: skip
# (raised exception, its HTTP status or 0 for any, our exception, the message); the first matching row counts
_MEANINGS: tuple[tuple[type[Exception], int, type[MixcliError], str], ...] = (
    (OfflineModeIsEnabled, 0, NotReachable, "{repo} is not complete on this machine, and --offline (or HF_HUB_OFFLINE, MIXCLI_OFFLINE) is set"),
    (GatedRepoError, 0, NotReachable, "{repo} is gated: accept its terms at {page}, log in with `hf auth login`, and pull again"),
    (DisabledRepoError, 0, NotReachable, "{repo} was disabled by the Hub; choose another repository"),
    (RepositoryNotFoundError, 0, NotReachable, "repository {repo} not found, or it is private; check the name, or log in with `hf auth login`"),
    (RevisionNotFoundError, 0, UsageError, "{repo} has no revision {revision!r}; its page lists them: {page}"),
    (RemoteEntryNotFoundError, 0, UsageError, "{repo} has no file {file!r}; its page lists them: {page}/tree/main"),
    (HfHubHTTPError, 401, NotReachable, "the Hub rejected the token for {repo}; log in again with `hf auth login`"),
    (HfHubHTTPError, 403, NotReachable, "{host} denies this account access to {repo} (403); see {page}"),
    (HfHubHTTPError, 404, UsageError, "repository {repo} not found at {host} (404); check the name and HF_ENDPOINT"),
    (HfHubHTTPError, 416, IntegrityError, "{host} has fewer bytes of {file} than the Hub lists (416); retry later, and check HF_ENDPOINT if this persists"),
    (HfHubHTTPError, 429, NotReachable, "rate limited by the Hub (429); retry {wait}, or log in for a higher limit; {kept}"),
    (HfHubHTTPError, 511, NotReachable, "the network requires a login (511); open any web page in a browser, log in, and rerun the command"),
    (HfHubHTTPError, 0, NotReachable, "{host} returned {status} for {repo}; {kept}"),
    (Untrusted, 0, IntegrityError, "{host} {detail}; check for a login page, a broken proxy or a wrong HF_ENDPOINT"),
    (Mismatch, 0, IntegrityError, "{host} {detail}; its copy of {file} differs from the listed one, or a proxy is broken; downloaded data is kept"),
    (httpx2.DecodingError, 0, IntegrityError, "{host} sent a response that cannot be decompressed; check for a broken proxy"),
    (httpx2.ConnectTimeout, 0, NotReachable, "{host} cannot be reached (no response); check the network; {kept}"),
    (httpx2.TimeoutException, 0, NotReachable, "{host} stopped responding, or sends less than 1 kB/s; {kept}"),
    (httpx2.ConnectError, 0, NotReachable, "{host} cannot be reached ({detail}); check the network; {kept}"),
    (httpx2.TooManyRedirects, 0, NotReachable, "{host} redirects endlessly; check HF_ENDPOINT and the proxy"),
)  # fmt: skip


def _url(error: Exception) -> httpx2.URL | None:
    """Return the address whose request failed, where the error knows it."""
    try:
        if isinstance(error, HfHubHTTPError):
            return error.response.request.url
        return error.request.url if isinstance(error, httpx2.RequestError) else None
    except RuntimeError:  # without a request
        return None


def _detail(error: Exception) -> str:
    """Return the shortest words that tell what happened."""
    if (untrusted := cause_of(error, ssl.SSLCertVerificationError)) is not None:
        return str(getattr(untrusted, "verify_message", "")) or "unknown reason"
    if (unknown := cause_of(error, socket.gaierror)) is not None:
        return str(getattr(unknown, "strerror", "")) or "no such name"
    return redacted(str(error))[:200] or "no connection"


def speaks_no_tls(error: Exception) -> bool:
    found = cause_of(error, ssl.SSLError)
    return found is not None and getattr(found, "reason", "") in {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "RECORD_LAYER_FAILURE",
    }


def cause_of(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """Return the first exception of a kind among what led to an error."""
    for _ in range(10):
        if error is None or isinstance(error, kind):
            return error
        error = error.__cause__ or error.__context__
    return None


def redacted(text: str) -> str:
    """Take tokens, logins and the query parts of addresses out of a text."""
    return _SECRET.sub("[redacted]", text)
