"""Errors on the wire, in OpenAI's form and with mixcli's exit codes."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from mixcli import errors
from mixcli.host.protocol.paths import MESSAGES, V1

BUSY = 503
NONE: Mapping[str, int] = {}

# exit code -> (HTTP status, OpenAI error type)
HTTP_ERRORS = {
    errors.UsageError.exit_code: (400, "invalid_request_error"),
    errors.DoesNotFit.exit_code: (400, "invalid_request_error"),
    errors.IntegrityError.exit_code: (500, "server_error"),
    errors.Busy.exit_code: (BUSY, "overloaded_error"),
    errors.ModelDied.exit_code: (BUSY, "server_error"),
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

# HTTP status -> the type of an error in Anthropic's form
ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}

# what a status means that comes without an exit code, from another server
BY_STATUS: dict[int, type[errors.MixcliError]] = {
    400: errors.UsageError,
    401: errors.NotReachable,
    403: errors.NotReachable,
    402: errors.NotReachable,
    404: errors.UsageError,
    405: errors.UsageError,
    407: errors.NotReachable,
    413: errors.DoesNotFit,
    422: errors.UsageError,
}
OVERFLOWS = {
    "context_length_exceeded",
    "exceed_context_size_error",
}  # a prompt that is too long, to OpenAI and to llama-server
OVERFLOW_WORDS = r"(?i)maximum context length|context (length|size|window)|max_model_len|too many tokens"
MAX_MESSAGE = 1000  # characters of what a server says


class ErrorBody(NamedTuple):
    """An error on the wire, in OpenAI's form; `exit_code` and `counts` (the tokens of a prompt that is too long) are mixcli's own.

    `is_text` marks one that a server wrote as a text alone, in place of an object.
    """

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None
    exit_code: int | None = None
    counts: Mapping[str, int] = NONE
    is_text: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the body of a response, or an event of a stream."""
        detail = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            "exit_code": self.exit_code,
        }
        return {"error": {**detail, **self.counts}}

    def to_anthropic(self, status: int) -> dict[str, object]:
        """Return the body of a response, or an event of a stream, as Anthropic's Messages have it."""
        kind, message = ANTHROPIC_TYPES.get(status, "api_error"), self.message
        if self.counts:  # in the words that Claude Code looks for, to make the conversation shorter
            step = message.partition("; ")[2]
            message = "prompt is too long: {n_prompt} tokens > {n_ctx} maximum".format(**self.counts)
            message += f"; {step}"
        return {"type": "error", "error": {"type": kind, "message": message}}

    def to_json_at(self, path: str, status: int) -> dict[str, object]:
        """Return the body of a response in the form that the clients of a path expect."""
        return self.to_anthropic(status) if is_anthropic(path) else self.to_json()


def is_anthropic(path: str) -> bool:
    """Return whether errors of a path have Anthropic's form; /v1 may be left out."""
    return f"{path.removeprefix(V1)}/".startswith(f"{MESSAGES.removeprefix(V1)}/")


def error_body(error: BaseException) -> tuple[int, ErrorBody]:
    """Return the HTTP status and the body of an error; a bug is named by its type."""
    if isinstance(error, OSError | RuntimeError) and not hasattr(error, "exit_code"):
        from mixcli.system.os_errors import translated

        error = translated(error) or error
    exit_code = getattr(error, "exit_code", None)
    status, kind = HTTP_ERRORS.get(exit_code or 1, (500, "server_error"))
    status = getattr(error, "status", status)
    message = str(error) if exit_code else f"internal error: {type(error).__name__}: {error}"
    code = getattr(error, "code", None) if exit_code else None
    counts = {}
    if isinstance(error, errors.ContextOverflow):
        code, counts = "context_length_exceeded", {"n_prompt": error.n_prompt, "n_ctx": error.n_ctx}
    return status, ErrorBody(message, kind, getattr(error, "param", None), code, exit_code or 1, counts)


def error_in(value: object, *, refused: bool = False) -> ErrorBody | None:
    """Return the error that an answer or an event is, in any form that servers use; None if it is not an error.

    OpenAI and llama-server write {"error": {...}}, others {"error": "text"}, vLLM {"object": "error", "message": ...}, FastAPI {"detail": ...}.
    With `refused` (a status that is not success) a text called message is one too.
    """
    if not isinstance(value, dict):
        return None
    if value.get("error"):
        return _read(value["error"])
    if value.get("object") == "error" or value.get("type") == "error" or (refused and value.get("message")):
        return _read(value)
    if value.get("detail") and "choices" not in value:
        return ErrorBody(_validation(value["detail"]))
    return None


def _read(detail: object) -> ErrorBody:
    if not isinstance(detail, dict):
        return ErrorBody(message_of(detail), is_text=True)
    exit_code = detail.get("exit_code")
    kind, code = detail.get("type"), detail.get("code")
    return ErrorBody(
        message_of(detail),
        None if kind is None else str(kind),
        code=None if code is None else str(code),
        exit_code=exit_code if isinstance(exit_code, int) else None,
    )


def _validation(detail: object) -> str:
    """Return FastAPI's detail as a sentence: a text, or a list of what is wrong where."""
    if not isinstance(detail, list):
        return message_of(detail)
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one.get('msg')}"
        if isinstance(one, dict) and isinstance(one.get("loc"), list)
        else message_of(one)
        for one in detail[:5]
    )


def message_of(detail: object) -> str:
    """Return the sentence of an error: never empty, on one line, of bounded length."""
    said = detail.get("message") if isinstance(detail, dict) else detail
    if isinstance(said, dict) and said.get("message"):  # an error in an error
        return message_of(said)
    if not isinstance(said, str) or not said.strip():
        said = json.dumps(detail, ensure_ascii=False)
        said = f"the server returned an error: {said}"
    return " ".join(said.split())[:MAX_MESSAGE].encode("utf-8", "replace").decode()


def raise_error(error: ErrorBody, status: int = 500) -> NoReturn:
    """Raise the error that a host reports, or any OpenAI-compatible server with its HTTP status."""
    cls = BY_STATUS.get(status, errors.MixcliError)
    if error.exit_code in BY_EXIT_CODE:
        cls = BY_EXIT_CODE[error.exit_code]
    elif {error.code, error.type} & OVERFLOWS:
        cls = errors.DoesNotFit
    else:
        cls = _by_words(error.message, cls, status)
    raise cls(f"the server returned an error: {error.message}" if error.is_text else error.message)


def _by_words(message: str, cls: type[errors.MixcliError], status: int) -> type[errors.MixcliError]:
    """Return DoesNotFit where a refusal, or an error in the middle, speaks of the context's length; servers have no common code for it."""
    return errors.DoesNotFit if status in (400, 413, 422, 500) and re.search(OVERFLOW_WORDS, message) else cls
