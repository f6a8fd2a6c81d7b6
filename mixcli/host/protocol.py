"""What goes over the wire besides the OpenAI API: the host's state, and errors with mixcli's exit code."""

from typing import Any

from mixcli import errors

ATTACH = "/mixcli/attach"  # SSE: the host's state until the guest leaves; the model stays loaded meanwhile
EXPERTS = "/mixcli/experts"  # how a conversation's last answer was routed over the experts
LOADING, READY, FAILED = "loading", "ready", "failed"

BUSY = 503

# exit code -> (HTTP status, OpenAI error type)
HTTP_ERRORS = {
    errors.UsageError.exit_code: (400, "invalid_request_error"),
    errors.DoesNotFit.exit_code: (400, "invalid_request_error"),
    errors.IntegrityError.exit_code: (500, "server_error"),
    errors.Busy.exit_code: (BUSY, "overloaded_error"),
}
BY_EXIT_CODE = {
    cls.exit_code: cls
    for cls in (
        errors.UsageError,
        errors.DoesNotFit,
        errors.IntegrityError,
        errors.NotReachable,
        errors.ModelDied,
    )
}


def error_body(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Give the HTTP status and the JSON body (OpenAI's form) of an error; a bug is named by its type."""
    exit_code = getattr(error, "exit_code", None)
    status, kind = HTTP_ERRORS.get(exit_code or 1, (500, "server_error"))
    message = str(error) if exit_code else f"internal error: {type(error).__name__}: {error}"
    body = {
        "message": message,
        "type": kind,
        "param": getattr(error, "param", None),
        "code": None,
        "exit_code": exit_code or 1,
    }
    if isinstance(error, errors.ContextOverflow):
        body |= {"code": "context_length_exceeded", "n_prompt": error.n_prompt, "n_ctx": error.n_ctx}
    return status, {"error": body}


def raise_error(body: dict[str, Any]) -> None:
    """Raise the error that a body from `error_body`, or from any OpenAI-compatible server, describes."""
    detail = body.get("error")
    if not isinstance(detail, dict):
        raise errors.MixcliError(f"the server answered with an error: {detail or body}")
    cls = BY_EXIT_CODE.get(detail.get("exit_code", 1), errors.MixcliError)
    raise cls(str(detail.get("message")))
