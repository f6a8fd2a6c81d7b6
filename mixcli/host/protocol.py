"""What goes over the wire besides the OpenAI API: the host's state, and errors with mixcli's exit code."""

from typing import Any, NoReturn

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

# what a status means that comes without an exit code, from another server
BY_STATUS: dict[int, type[errors.MixcliError]] = {
    400: errors.UsageError,
    401: errors.NotReachable,
    403: errors.NotReachable,
    404: errors.UsageError,
    422: errors.UsageError,
}
OVERFLOW = "context_length_exceeded"  # OpenAI's code for a prompt that is too long


def error_body(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Give the HTTP status and the JSON body (OpenAI's form) of an error; a bug is named by its type."""
    exit_code = getattr(error, "exit_code", None)
    status, kind = HTTP_ERRORS.get(exit_code or 1, (500, "server_error"))
    status = getattr(error, "status", status)
    message = str(error) if exit_code else f"internal error: {type(error).__name__}: {error}"
    body = {
        "message": message,
        "type": kind,
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None) if exit_code else None,
        "exit_code": exit_code or 1,
    }
    if isinstance(error, errors.ContextOverflow):
        body |= {"code": "context_length_exceeded", "n_prompt": error.n_prompt, "n_ctx": error.n_ctx}
    return status, {"error": body}


def raise_error(body: dict[str, Any], status: int = 500) -> NoReturn:
    """Raise the error that a body from `error_body`, or from any OpenAI-compatible server with its HTTP status, describes."""
    detail = body.get("error")
    if not isinstance(detail, dict):
        raise BY_STATUS.get(status, errors.MixcliError)(
            f"the server answered with an error: {detail or body}"
        )
    cls = BY_EXIT_CODE.get(detail.get("exit_code", 0), BY_STATUS.get(status, errors.MixcliError))
    if detail.get("code") == OVERFLOW:
        cls = errors.DoesNotFit
    raise cls(str(detail.get("message")))
