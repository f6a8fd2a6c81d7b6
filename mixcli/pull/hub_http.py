"""The HTTP client of all requests to the Hub: timeouts, size limits and proxies.

A server is input. Every read has a time limit of its own, and a server that sends too slowly counts as silent: over some of these limits it must
send at least MIN_RATE. What is not a download is at most MAX_ANSWER. Redirects are followed here, to http and https only.
"""

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import httpx2
from httpx2._utils import URLPattern, get_environment_proxies

from mixcli.errors import UsageError

MAX_HOPS = 10
MAX_ANSWER = 32 << 20  # bytes of a listing: 20,000 files have about 8 MiB
MIN_RATE = 1024  # bytes a second, over the time that is spent waiting
WINDOW = 3  # read timeouts over which the rate is taken
DEFAULT_TIMEOUT = 10.0
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+(%[\w.-]+)?\]?")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Untrusted(httpx2.RequestError):
    """A response that no Hub sends; a retry would get the same. The text says what it does: "sends ..."."""


class Mismatch(httpx2.RemoteProtocolError):
    """Bytes that are not those that were asked for; a busy cache may do it once. The text says what it does: "sends ..."."""


class HubClient(httpx2.Client):
    """httpx2's client with bounds; `check` looks at every request before it goes out."""

    def __init__(self, check: Callable[[httpx2.Request], None], timeout: float) -> None:
        tls = _certificates()
        found = get_environment_proxies()
        super().__init__(
            transport=_watched(httpx2.HTTPTransport(verify=tls)),
            mounts={pattern: _through(address, tls) for pattern, address in found.items()},
            event_hooks={"request": [check]},
            follow_redirects=True,
            timeout=timeout,
        )

    def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request and follow redirects; unless `stream` is set the answer is whole and bounded."""
        follow = self.follow_redirects if follow_redirects is httpx2.USE_CLIENT_DEFAULT else follow_redirects
        for _ in range(MAX_HOPS):
            try:
                response = super().send(request, stream=True, auth=auth, follow_redirects=False)
            except httpx2.RemoteProtocolError as error:
                if "location header" in str(error):
                    raise Untrusted("redirects to an invalid address", request=request) from error
                raise
            if not (follow and response.next_request):
                return response if stream else whole(response)
            response.close()
            request = response.next_request
        raise httpx2.TooManyRedirects(f"more than {MAX_HOPS} redirects", request=request)


def whole(response: httpx2.Response) -> httpx2.Response:
    """Return a response with all of its body; that of an error is not read. Raises Untrusted for one without an end."""
    try:
        encodings = response.headers.get("Content-Encoding", "")
        if "," in encodings:  # each of them may be a bomb for the next
            raise Untrusted("compresses its response several times", request=response.request)
        body = bytearray()
        for chunk in () if response.is_error else response.iter_bytes(1 << 16):
            body += chunk
            if len(body) > MAX_ANSWER:
                raise Untrusted(
                    f"sends more than {MAX_ANSWER >> 20} MiB instead of a list of files",
                    request=response.request,
                )
    finally:
        response.close()
    kept = [
        pair
        for pair in response.headers.multi_items()
        if pair[0].lower() not in {"content-encoding", "transfer-encoding"}
    ]
    if response.request.method != "HEAD":
        kept = [pair for pair in kept if pair[0].lower() != "content-length"]
    return httpx2.Response(
        response.status_code,
        headers=kept,
        content=bytes(body),
        request=response.request,
    )


def joined(base: str, location: str) -> str:
    """Return where a redirect leads; raises Untrusted for an address that is not valid."""
    try:
        url = httpx2.URL(base).join(location)
        if url.scheme not in ("http", "https"):
            raise Untrusted(
                "redirects to an address that is not http or https", request=httpx2.Request("GET", base)
            )
        if not is_address(url):
            raise httpx2.InvalidURL(location)
    except (httpx2.InvalidURL, ValueError) as error:
        raise Untrusted("redirects to an invalid address", request=httpx2.Request("GET", base)) from error
    return str(url)


def is_address(url: httpx2.URL) -> bool:
    """Return whether an address has a host and a port that can be; httpx2 escapes what cannot."""
    is_port = url.port is None or 0 < url.port < 1 << 16
    return is_port and _HOST.fullmatch(url.raw_host.decode("ascii", "replace")) is not None


# proxies


def proxy_of(url: httpx2.URL) -> tuple[str, str] | None:
    """Return the proxy of a request, without its login, and the variable that names it; None without a proxy."""
    patterns = {URLPattern(pattern): address for pattern, address in get_environment_proxies().items()}
    for pattern in sorted(patterns):
        if pattern.matches(url):
            address = patterns[pattern]
            return (bare(address), _variable(address)) if address else None
    return None


def bare(address: str) -> str:
    """Return an address without the login and the path in it, cut where it is long."""
    scheme, _, rest = address.rpartition("://")
    place = rest.rpartition("@")[2].partition("/")[0][:80]
    return f"{scheme}://{place}" if scheme else place


def _variable(address: str) -> str:
    """Return the name of the variable that holds a proxy's address."""
    plain = address.removeprefix("http://")
    return next((name for name in PROXIES if os.environ.get(name) in {address, plain}), "the proxy settings")


def _through(address: str | None, tls: Any) -> httpx2.BaseTransport | None:
    """Return the transport through a proxy; one that is wrong is refused when it is used."""
    if address is None:
        return None
    name = _variable(address)
    try:
        proxy = httpx2.Proxy(address)
        if not is_address(proxy.url):
            raise ValueError
        return _watched(httpx2.HTTPTransport(proxy=proxy, verify=tls))
    except ImportError:
        return _Refused(
            f"{name} names a SOCKS proxy ({bare(address)}), and SOCKS is not installed; run: pip install socksio, or unset {name}"
        )
    except (ValueError, TypeError, httpx2.InvalidURL):
        return _Refused(
            f"{name} is not a valid proxy address ({bare(address)!a}); use http://host:port, or unset it"
        )


class _Refused(httpx2.BaseTransport):
    """The transport of a setting that cannot work."""

    def __init__(self, why: str) -> None:
        self._why = why

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        raise UsageError(self._why)


def _certificates() -> Any:
    try:
        return httpx2.create_ssl_context()
    except (OSError, ValueError) as error:
        names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        raise UsageError(
            f"the certificates in {' and '.join(names) or 'the default location'} cannot be loaded ({error}); correct or unset it"
        ) from error


# time


def _watched(transport: httpx2.HTTPTransport) -> httpx2.HTTPTransport:
    """Let a transport's connections be watched for their rate."""
    transport._pool._network_backend = _Backend()
    return transport


class _Backend(httpcore2.NetworkBackend):
    """httpcore2's own network, with streams that are watched."""

    def __init__(self) -> None:
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._network.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._network.sleep(seconds)


class _Stream(httpcore2.NetworkStream):
    """A connection whose other end must keep to a rate; counting begins with each thing that is sent."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._waited, self._received = 0.0, 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        limit = timeout or DEFAULT_TIMEOUT
        begin = time.monotonic()
        data = self._stream.read(max_bytes, limit)
        self._waited += time.monotonic() - begin
        self._received += len(data)
        if self._waited > WINDOW * limit:
            if self._received < MIN_RATE * self._waited:
                raise httpcore2.ReadTimeout("too slow")
            self._waited, self._received = 0.0, 0
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._waited, self._received = 0.0, 0
        self._stream.write(buffer, timeout or DEFAULT_TIMEOUT)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout or DEFAULT_TIMEOUT))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
