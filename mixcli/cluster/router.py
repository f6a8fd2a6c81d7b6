"""Send the requests of a conversation to the replica that has its beginning in the KV cache, by Ray Serve's interface for routers."""

from typing import Any

from ray.serve.request_router import RequestRouter

from mixcli.cluster.affinity import owner

SLACK = 8  # requests that a replica may have more than another one before conversations leave it: computing a prompt again costs less


class ConversationRouter(RequestRouter):  # type: ignore[misc]
    """Chooses by the session id of a request, which is the key of its conversation, and by load where it has none.

    The replica with the highest hash of key and replica is the conversation's (rendezvous hashing): all routers agree, and when a replica
    is gone only its own conversations move. A replica that is full, or has SLACK requests more than another one, is passed over for the
    one with the fewest.
    """

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """Return the candidates in ranks, of which the first one with room is taken; within a rank it is the one with the fewest requests."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # between two rounds, where all are full
        key = pending_request.metadata.session_id
        if not key:
            return [candidate_replicas]
        own = owner(key, [replica.replica_id.unique_id for replica in candidate_replicas])
        loads = [self.replica_queue_len_cache.get(one.replica_id) or 0 for one in candidate_replicas]
        if loads[own] >= min(loads) + SLACK:
            return [candidate_replicas]
        others = [*candidate_replicas[:own], *candidate_replicas[own + 1 :]]
        return [[candidate_replicas[own]], others]
