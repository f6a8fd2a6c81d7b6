"""The client of all front ends: OpenAI's chat API over a host's unix socket, on the standard library.

`ChatClient` is the protocol, `HostClient` reaches a host of this machine; endpoint.py reaches any other server.
"""

import contextlib
import json
import math
import select
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mixcli.client.completions import Halves, completion_of, delta_of
from mixcli.client.events import MAX_BODY, Events, Response, body_of, parsed, pieces
from mixcli.client.refusal import refuse
from mixcli.client.unix_http import CONNECT, BrokenResponse, UnixResponse, connect, send
from mixcli.errors import MixcliError, ModelDied, Unresponsive
from mixcli.host.protocol.errors import error_in, raise_error
from mixcli.host.protocol.host_record import listener_pid, process_at
from mixcli.host.protocol.messages import ChatBody, Delta, Fields, object_of
from mixcli.host.protocol.paths import ATTACH, CHAT, EXPERTS, HEALTH, TOKENIZE
from mixcli.host.protocol.status import LoadStatus
from mixcli.system.process_state import STOPPED, silence, state

if TYPE_CHECKING:
    from socket import socket

    from mixcli.host.protocol.answers import ChatCompletion, ExpertUse, TokenCount
    from mixcli.host.protocol.health import HostHealth
    from mixcli.request.prompt import ChatTurn

NONE: Mapping[str, str] = MappingProxyType({})
TOO_MANY = 4  # pieces of an answer for every token that was allowed, and as many more: who sends more ignores max_tokens
MORE = 64
MAX_SILENT = 1 << 20  # events without text: of the progress of a prompt, or of hidden reasoning
MAX_CALLS = 512  # of tools, in one answer; a host takes no more back either

POLL_INTERVAL = (
    3.0  # seconds between two looks at a host that computes a whole answer and says nothing meanwhile
)
PAUSES = 2  # looks that find the process stopped by a signal

# how a connection looks whose other end went away
GONE = (ConnectionError, FileNotFoundError, BrokenResponse)


class ChatClient:
    """OpenAI's chat API over connections that a subclass makes; one connection a call."""

    is_host = False  # whether the other end is a host of this version, which knows our own fields
    prefix = ""  # of every path
    lost: tuple[type[Exception], ...] = GONE  # how it looks when the server is not there any more
    headers: Mapping[str, str] = NONE
    defaults: Fields = NONE  # of every request for an answer
    patience = (
        math.inf
    )  # seconds in which a whole response, or an event of a stream, must come; keep-alives do not count

    def chat(self, body: ChatBody) -> Generator[Delta, None, None]:
        """Stream one answer.

        Raises the error that the server reports, or what `gone` gives when it goes away before the answer has ended.
        """
        said = {**self.defaults, **body.to_json()}
        request = {**said, "stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._request("POST", CHAT, request) as response:
                yield from self._deltas(response, pieces(response), body.max_tokens)
        except self.lost as error:
            raise self.gone("during the response", error) from error

    def _deltas(
        self, response: Response, source: Iterable[bytes], max_tokens: int | None
    ) -> Generator[Delta, None, None]:
        """Yield the pieces of an answer up to its end; disconnect from a server that never ends it."""
        heard = time.monotonic()

        def watched() -> Iterator[bytes]:
            for piece in source:
                if time.monotonic() - heard > self.patience:
                    raise TimeoutError(f"it sent only keep-alives for {self.patience:.0f} s")
                yield piece

        events, halves = Events(watched()), Halves()
        is_finished = has_choices = False
        n_pieces = n_bytes = n_silent = 0
        called: set[tuple[int, str]] = set()
        for event in events:
            heard = time.monotonic()
            if found := error_in(event):
                raise_error(found)
            delta = delta_of(event)
            is_finished = is_finished or delta.finish_reason is not None
            has_choices = has_choices or "choices" in event
            text = halves.join(delta.text, is_last=delta.finish_reason is not None)
            n_called = sum(len(one.arguments) for one in delta.calls)
            called.update((one.index, one.id or one.name) for one in delta.calls)
            if len(called) > 2 * MAX_CALLS:  # each call has one place, or one with and one without its name
                raise MixcliError(f"the server's response calls more than {MAX_CALLS} tools; truncated")
            if text and not n_pieces:
                self._text_begins(response)
            is_silent = not (text or delta.reasoning or n_called)
            n_pieces, n_silent = n_pieces + (not is_silent), n_silent + is_silent
            if n_silent > MAX_SILENT:
                raise MixcliError(f"the server sent more than {MAX_SILENT:,} events without text; truncated")
            n_bytes += len(text) + len(delta.reasoning) + n_called
            if n_bytes > MAX_BODY or (max_tokens and n_pieces > TOO_MANY * max_tokens + MORE):
                raise MixcliError(
                    f"the server sent {n_pieces:,} pieces of an answer where {max_tokens or 'no'} tokens were allowed; truncated"
                    if max_tokens
                    else f"the server's response is longer than {MAX_BODY:,} bytes; truncated"
                )
            yield delta._replace(text=text) if text != delta.text else delta
        if not (is_finished or events.is_done):
            _check_kind(response)
            raise self.gone("during the response")
        if not has_choices:
            raise MixcliError("the server's response has no choices, so it has no text")

    def complete(self, body: ChatBody, key: str = "") -> "ChatCompletion":
        """Return a whole response; errors as in `chat`.

        `key` names the request (Idempotency-Key): a host that has computed its response already returns it again.
        """
        from mixcli.host.protocol.answers import ChatCompletion

        named = {"Idempotency-Key": key} if key else NONE
        return ChatCompletion(self._value(CHAT, {**self.defaults, **body.to_json()}, named))

    def count_text(self, text: str) -> "TokenCount":
        """Count the tokens of a text."""
        from mixcli.host.protocol.answers import TokenCount

        return TokenCount.of(self._value(TOKENIZE, {"prompt": text}))

    def count_messages(self, messages: "Sequence[ChatTurn]", tools: Sequence[object] = ()) -> "TokenCount":
        """Count the tokens of a conversation with the definitions of its tools, ready for an answer."""
        from mixcli.host.protocol.answers import TokenCount

        body: dict[str, object] = {"messages": [one.to_json() for one in messages]}
        return TokenCount.of(self._value(TOKENIZE, {**body, "tools": list(tools)} if tools else body))

    def gone(self, when: str, cause: Exception | None = None, /) -> MixcliError:
        """Return the error of a server that went away."""
        raise NotImplementedError

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, patience: float, /
    ) -> Response:
        """Connect, send a request, and return the response, which may take `patience` seconds to begin."""
        raise NotImplementedError

    def _text_begins(self, response: Response) -> None:
        """Note that the prompt of a streamed answer has been read."""

    def _value(self, path: str, body: Fields, headers: Mapping[str, str] = NONE) -> Fields:
        try:
            with self._request("POST", path, body, headers) as response:
                raw = body_of(response, patience=self.patience)
                try:
                    value = parsed(raw)
                except (ValueError, RecursionError):
                    if path != CHAT or b"data:" not in raw[:4096]:
                        _check_kind(response)
                        raise MixcliError(
                            f"the server's response to {path} is not JSON: {_first_words(raw)}"
                        ) from None
                    return completion_of(self._deltas(response, [raw], None)).body
        except self.lost as error:
            raise self.gone("before the response", error) from error
        if not isinstance(value, dict):
            raise MixcliError(f"the server's response to {path} is not a JSON object; check the address")
        if found := error_in(value):
            raise_error(found)
        return value

    def _request(
        self,
        method: str,
        path: str,
        body: Fields | None = None,
        headers: Mapping[str, str] = NONE,
        *,
        patience: float | None = None,
    ) -> Response:
        payload = b"" if body is None else json.dumps(body).encode()
        said = {"Content-Type": "application/json", "Connection": "close", **self.headers, **headers}
        response = self._exchange(method, self.prefix + path, said, payload, patience or self.patience)
        if response.status >= 300:
            with response:
                refuse(response)
        return response

    @staticmethod
    def _events(response: Response) -> Generator[Fields, None, None]:
        """Yield the JSON of every server-sent event up to [DONE]; closing the iterator closes the connection."""
        with response:
            yield from Events(pieces(response))


class HostClient(ChatClient):
    """Talks with the host behind one unix socket.

    A host that is stopped, or hangs, is one that gives no sign of life for `silence` seconds: Unresponsive then, wherever that is noticed.
    """

    is_host = True
    lost = (*GONE, TimeoutError)

    def __init__(self, path: Path) -> None:
        self.path = path

    def health(self, seconds: float = CONNECT) -> "HostHealth":
        """Return the host's state; OSError when nothing listens, TimeoutError when it does not respond in time, ValueError when it is another program."""
        from mixcli.host.protocol.health import HostHealth

        with contextlib.closing(connect(self.path, seconds)) as connection:
            send(connection, "GET", HEALTH, NONE, b"")
            with UnixResponse(connection) as response:
                return HostHealth.of(object_of(json.loads(body_of(response))))

    def attach(self, keep_alive: float) -> Generator[LoadStatus, None, None]:
        """Yield the host's states while holding the model loaded; OSError at once when nothing listens.

        Closing the iterator leaves; `keep_alive` seconds later the host may end. The iterator ends when the host does, with a
        TimeoutError when a load gives no sign of life.
        """
        return self._statuses(self._request("GET", f"{ATTACH}?keep_alive={keep_alive}"))

    def _statuses(self, response: Response) -> Generator[LoadStatus, None, None]:
        with contextlib.closing(self._events(response)) as events:
            for event in events:
                yield LoadStatus.of(event)

    def experts(self, messages: "Sequence[ChatTurn]") -> "ExpertUse":
        """Return how the last answer of a conversation was routed."""
        from mixcli.host.protocol.answers import ExpertUse

        return ExpertUse.of(self._value(EXPERTS, {"messages": [one.to_json() for one in messages]}))

    def gone(self, when: str, cause: Exception | None = None, /) -> MixcliError:
        if isinstance(cause, TimeoutError):
            return unresponsive(self.path)
        return ModelDied(f"the model process crashed {when}")

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, _patience: float, /
    ) -> Response:
        connection = connect(self.path, silence())
        try:
            send(connection, method, target, headers, body)
            self._wait_for_response(connection)
            return UnixResponse(connection)
        except BaseException:
            connection.close()
            raise

    def _wait_for_response(self, connection: "socket") -> None:
        """Wait for as long as the host is alive: an answer may take minutes, and comes in one piece. TimeoutError when it is not."""
        pid, alive, n_stopped = listener_pid(connection), time.monotonic(), 0
        answer = select.poll()  # select itself takes no descriptor beyond 1,023
        answer.register(connection, select.POLLIN)
        while not answer.poll(POLL_INTERVAL * 1000):
            try:
                self.health()
            except (OSError, ValueError):  # also of one that was told to stop and still completes what it has
                n_stopped = n_stopped + 1 if state(pid) == STOPPED else 0
                if n_stopped == PAUSES or time.monotonic() - alive > silence():
                    raise TimeoutError("no response") from None
            else:
                alive, n_stopped = time.monotonic(), 0


def unresponsive(path: Path) -> Unresponsive:
    """Return the error for a host that does not respond: its process, the cause and the next step."""
    pid = process_at(path)
    which = f" (pid {pid})" if pid else ""
    how = ": stopped by SIGSTOP" if state(pid) == STOPPED else ""
    return Unresponsive(
        f"the model process{which} does not respond{how}; end it with `mixcli stop` and rerun the command"
    )


def _check_kind(response: Response) -> None:
    """Raise MixcliError where a web page came instead of a response."""
    kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise MixcliError(
            "the server responded with a web page; use the address of an API, such as https://api.example.org/v1"
        )


def _first_words(raw: bytes) -> str:
    return " ".join(raw[:1000].decode("utf-8", "replace").split())[:200] or "it is empty"


__all__ = ["GONE", "ChatClient", "HostClient"]
