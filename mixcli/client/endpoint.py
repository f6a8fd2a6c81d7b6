"""Any OpenAI-compatible server in place of a host: its address, key and model."""

import contextlib
import errno
import http.client
import io
import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mixcli.client.events import Response, body_of, parsed
from mixcli.client.openai import GONE, ChatClient
from mixcli.client.timed_connection import TimedConnection, TimedResponse
from mixcli.errors import MixcliError, NotReachable, UsageError
from mixcli.host.protocol.messages import object_of

PATIENCE = (
    600.0  # seconds in which an answer must begin: a long prompt is read meanwhile, behind those of others
)
SILENCE = 300.0  # seconds between two pieces of an answer once its text has begun
QUERY_SECONDS = 60.0  # seconds for what needs no model


class EndpointClient(ChatClient):
    """Talks with the server at an address such as https://api.example.org/v1; `key` goes to it as a bearer token."""

    # no such name, refused, timed out, a bad certificate; a head that is not HTTP
    lost = (*GONE, OSError, http.client.HTTPException, UnicodeError)

    patience = PATIENCE

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        parts = _parts(url)
        if parts is None:
            raise UsageError(
                f"{url!r} is not a valid server address; use a form such as https://api.example.org/v1"
            )
        if parts.username is not None:
            raise UsageError(
                "the address contains a password; put the key in an environment variable and pass its name with --api-key-env"
            )
        self.host, self.port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self.prefix = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        if key and not self._tls and not self.is_here:
            raise UsageError(f"{url} is not encrypted, so the API key would be sent in plain text; use https")

    @property
    def is_here(self) -> bool:
        """Return whether the address is one of this machine itself."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def models(self) -> dict[str, int]:
        """Return what the server offers: names, each with its context length in tokens, 0 where the server does not report it (vLLM and mixcli do)."""
        try:
            with self._request("GET", "/v1/models", patience=QUERY_SECONDS) as response:
                models = object_of(parsed(body_of(response, patience=QUERY_SECONDS)))["data"]
            if not isinstance(models, list):
                raise TypeError(models)
            return {str(model["id"]): _whole(model.get("max_model_len")) for model in models}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MixcliError(f"{self.url} does not list its models; choose one with -m") from error
        except self.lost as error:
            raise self.gone("before the response", error) from error

    def check(self) -> None:
        """Raise NotReachable where nothing accepts connections at the address."""
        self._connection(QUERY_SECONDS).close()

    def gone(self, when: str, cause: Exception | None = None, /) -> MixcliError:
        if isinstance(cause, TimeoutError) and cause.errno is None:  # one of ours
            return NotReachable(f"{self.url} timed out: {cause}; check the server or retry later")
        return NotReachable(f"{self.url} closed the connection {when}: {_why(cause)}")

    def _text_begins(self, response: Response) -> None:
        if isinstance(response, TimedResponse):
            response.patience = min(self.patience, SILENCE)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, patience: float, /
    ) -> Response:
        connection = self._connection(patience)
        said = {**headers, "Content-Length": str(len(body))} if body else headers
        try:
            # it may have refused before it read all; in pieces: a timeout counts for each
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, io.BytesIO(body) if body else None, said)
            response = connection.getresponse()
            # one that the server would keep open; the response holds it until it has been read
            if connection.sock:
                connection.sock.close()
        except BaseException:
            connection.close()
            raise
        assert isinstance(response, TimedResponse)
        return response

    def _connection(self, patience: float) -> TimedConnection:
        """Return a connection. Raises NotReachable with the address where it cannot be."""
        connection = TimedConnection(self.host, self.port, patience, tls=self._tls)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:
            place = f"[{self.host}]" if ":" in self.host else self.host
            raise NotReachable(
                f"cannot connect to {place}:{connection.port}: {_why(error)}; {_advice(error)}"
            ) from error
        return connection


def _whole(value: object) -> int:
    """Return a number that a server tells; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _why(cause: Exception | None) -> str:
    """Return the reason of a failure in a few words."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return f"it does not speak TLS as expected ({cause.reason or cause})"
    return getattr(cause, "strerror", None) or str(cause or "") or "connection closed"


def _advice(cause: Exception) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "use the host name of the certificate, or add its CA with SSL_CERT_FILE"
    if isinstance(cause, ssl.SSLError):
        return "check whether the address should begin with http://"
    if isinstance(cause, OSError) and cause.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "start the server there, or check the port"
    return "check the address and the network"


def _parts(url: str) -> SplitResult | None:
    """Return the parts of a URL; None if it is not a valid address for requests."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 -- it raises if the port is invalid
        (parts.hostname or "").encode("idna")
    except (ValueError, UnicodeError):
        return None
    is_plain = url.isprintable() and " " not in url and parts.path.isascii()
    is_whole = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    return parts if is_plain and is_whole else None


@dataclass(frozen=True)
class Endpoint:
    """A server's model, with the interface of a host."""

    client: EndpointClient
    model: str
    notes: tuple[str, ...] = ()
    why_no_drafts = ""  # a remote server decides itself whether it drafts

    @property
    def label(self) -> str:
        return f"{self.model} at {self.client.url}"

    def release(self) -> None:
        """Do nothing: a server is not held."""

    def cause_of_death(self) -> str:
        return "the server closed the connection"


def endpoint(url: str, key_variable: str | None, model: str | None) -> Endpoint:
    """Check an address and its key, and find the model: the named one, or the server's only one."""
    key = None
    if key_variable:
        key = os.environ.get(key_variable, "").strip()
        if not key:
            raise UsageError(f"the environment variable {key_variable} is empty or not set; export it first")
        if not key.isprintable() or not key.isascii():
            raise UsageError(
                f"the environment variable {key_variable} has characters that are invalid in a key; set it to the key alone"
            )
    client = EndpointClient(url, key)
    if model is None:
        names = list(client.models())
        if len(names) != 1:
            raise UsageError(f"choose a model of {url} with -m: {', '.join(names[:8]) or 'none available'}")
        model = names[0]
    client.defaults = {"model": model}
    return Endpoint(client, model)
