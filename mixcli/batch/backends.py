"""Backends of a batch: send one request, wait while the server is busy, restart a host that died."""

import threading
import time
from collections.abc import Callable

from mixcli.client.endpoint import Endpoint
from mixcli.client.openai import ChatClient
from mixcli.client.process import Host
from mixcli.errors import Busy, ModelDied
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody
from mixcli.system.console import console

PATIENCE = 900.0  # seconds that a busy server is waited for
MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds between two tries, where the server asks for fewer
MAX_DEATHS = 3  # of the model's process while one request is asked


def retry_while_busy(
    client: ChatClient, body: ChatBody, key: str, patience: float = PATIENCE
) -> ChatCompletion:
    """Send a request; while the server is busy, wait as long as it asks, longer each time, and retry."""
    deadline = time.monotonic() + patience
    backoff = MIN_PAUSE
    while True:
        try:
            return client.complete(body, key)
        except Busy as error:
            seconds = max(error.seconds, backoff)
            if time.monotonic() + seconds > deadline:
                raise
            time.sleep(seconds)
            backoff = min(backoff * 2, MAX_PAUSE)


class HostBackend:
    """Asks a host of this machine; when it dies, one thread starts it again and the requests that were in flight are asked again.

    A second death without an answer between the two is raised: some request kills the model.
    """

    width = 1

    def __init__(self, load: Callable[[], Host], identity: str) -> None:
        self.identity = identity
        self._load = load
        self._host = load()
        self._generation = 0
        self._n_answers, self._n_at_death = 0, -1
        self._lock = threading.Lock()

    def __call__(self, body: ChatBody, key: str) -> ChatCompletion:
        n_deaths = 0
        while True:
            with self._lock:
                host, generation = self._host, self._generation
            try:
                answer = retry_while_busy(host.client, body._replace(park=False), key)
            except ModelDied as error:
                n_deaths += 1
                if n_deaths == MAX_DEATHS:
                    raise ModelDied(
                        f"the model process crashed {n_deaths} times during one record ({host.cause_of_death()}); finished records are saved"
                    ) from error
                self._revive(generation, error)
                continue
            with self._lock:
                self._n_answers += 1
            return answer

    def close(self) -> None:
        """Release the model."""
        self._host.release()

    def _revive(self, generation: int, error: ModelDied) -> None:
        with self._lock:
            if generation != self._generation:
                return  # another thread has done it
            cause = self._host.cause_of_death()
            if self._n_answers == self._n_at_death:
                raise ModelDied(
                    f"the model process crashed twice in a row ({cause}); finished records are saved"
                ) from error
            self._n_at_death = self._n_answers
            console.warn(f"the model process crashed ({cause}); restarting it")
            self._host.release()
            self._host = self._load()
            self._generation += 1


class EndpointBackend:
    """Asks another server."""

    width = 1

    def __init__(self, endpoint: Endpoint) -> None:
        self.identity = endpoint.label
        self._endpoint = endpoint

    def __call__(self, body: ChatBody, key: str) -> ChatCompletion:
        return retry_while_busy(self._endpoint.client, body, key)

    def close(self) -> None:
        """Do nothing: a server is not held."""
