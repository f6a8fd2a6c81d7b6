"""The routes of a host besides OpenAI's, and the states of its model."""

ATTACH = "/mixcli/attach"  # SSE: the host's state until the guest leaves; the model stays loaded meanwhile


EXPERTS = "/mixcli/experts"  # how a conversation's last answer was routed over the experts


LOADING, READY, FAILED = "loading", "ready", "failed"
