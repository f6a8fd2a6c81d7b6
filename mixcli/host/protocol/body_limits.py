"""How large the bodies of requests may be, and how long they may take to arrive: on a port and in a host alike."""

MAX_BODY = 1 << 26  # bytes of one request
MAX_HELD = 1 << 27  # bytes of the bodies of all requests that are not answered yet
WHOLE_BODY = 120.0  # seconds until the last byte of one
