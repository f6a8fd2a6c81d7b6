"""What travels between the port and a replica: an accepted request, and its answer part by part."""

from collections.abc import Sequence
from typing import NamedTuple

from mixcli.serve.gate import Accepted
from mixcli.serve.refusal import Header


class ClusterRequest(NamedTuple):
    """A request that the gate has let in; `headers` are its client's, `id` is the one that its answer has."""

    accepted: Accepted
    headers: Sequence[Header]
    id: bytes
    body: bytes


class Taken(NamedTuple):
    """A replica has the request; nothing is computed yet."""

    replica: str


class Begun(NamedTuple):
    """The head of an answer."""

    status: int
    headers: Sequence[Header]


class BodyPart(NamedTuple):
    """Some bytes of the body of an answer; without `more` the last ones."""

    body: bytes
    more: bool


Part = Taken | Begun | BodyPart


class ReplicaLook(NamedTuple):
    """What a replica says at a path such as /health."""

    replica: str
    status: int
    body: bytes
