"""The exception tree of mixcli, each class with its exit code.

    MixcliError                1  failure
    ├── InternalError          1  a bug that ended one request
    ├── InUse                  1  another process works on the same file, model or port
    ├── UsageError             2  an option, name or value that is wrong
    │   ├── BadRequest         2  one field of a request to the model, named in `param`
    │   └── NotInstalled       2  a model that could be pulled, and is not on this machine
    ├── SomeFailed             3  some records failed, the rest is done
    ├── DoesNotFit             4  memory, disk or context is too small
    │   └── ContextOverflow    4  a prompt has more tokens than the context
    ├── IntegrityError         5  corrupt, truncated, mismatched or unsupported file
    │   └── UnreadableFile     1  a file that may be sound and cannot be read: no permission
    ├── NotReachable           6  offline, gated, rate limited
    │   └── Busy               6  the queue is full
    └── ModelDied              7  the model process crashed
        └── Unresponsive       7  it runs but does not respond

A message is one sentence: cause, number, next step. It is raised where the fact is known and shown once, in cli.py.
quantize/ and profiles/ have trees of their own with the same `exit_code` attribute; an exception without one is a bug
and keeps its traceback. 130 (interrupted) and 141 (broken pipe) are set by cli.py.
"""


class MixcliError(Exception):
    """Base of all errors that are shown to users."""

    exit_code = 1


class InternalError(MixcliError):
    """A bug ended one request; the process continues, and its log has the traceback."""


class InUse(MixcliError):
    """Another process works on the same file, model or port; the same command works once that has ended."""


class UsageError(MixcliError):
    """The command line is invalid."""

    exit_code = 2


class BadRequest(UsageError):
    """One field of a request is wrong; over HTTP this is a 400 that names `param`, with OpenAI's `code` where it has one."""

    code: str | None = None

    def __init__(self, message: str, *, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.code


class NotInstalled(UsageError):
    """A model could be pulled and is not on this machine.

    `name` is what a person wrote, None where nothing was named and nothing is here. `offer` is what `mixcli pull` takes for the model that the
    next step names: empty for the one that suits the machine.
    """

    def __init__(self, what: str, step: str, name: str | None, offer: str | None = None) -> None:
        super().__init__(f"{what}; {step}")
        self.what = what
        self.name = name
        self.offer = offer if offer is not None else name or ""


class SomeFailed(MixcliError):
    """Some records failed; the others are written."""

    exit_code = 3


class DoesNotFit(MixcliError):
    """Memory, disk or context is too small for the request."""

    exit_code = 4


class ContextOverflow(DoesNotFit):
    """A prompt has more tokens than the context has room for; `what` names it, `at_least` says that `n_prompt` is a lower bound.

    `param` is its field over HTTP.
    """

    def __init__(
        self,
        n_prompt: int,
        n_ctx: int,
        *,
        what: str = "the prompt",
        at_least: bool = False,
        param: str = "messages",
    ) -> None:
        bound = "at least " if at_least else ""
        super().__init__(
            f"{what} is too long: {bound}{n_prompt:,} tokens, {n_prompt - n_ctx:,} more than the maximum context length of {n_ctx:,}; "
            f"shorten it or use a larger context (--ctx {-(-(n_prompt + 256) // 1024) * 1024})"
        )
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx
        self.param = param


class IntegrityError(MixcliError):
    """A file is corrupt, truncated, mismatched or unsupported."""

    exit_code = 5


class UnreadableFile(IntegrityError):
    """A file that may be sound cannot be read, such as one without permission."""

    exit_code = 1


class NotReachable(MixcliError):
    """Something outside this machine could not be reached."""

    exit_code = 6


class Busy(NotReachable):
    """The queue is full and the request was rejected; retry after `seconds`. Over HTTP this is a 503."""

    def __init__(self, message: str, seconds: float = 2.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class ModelDied(MixcliError):
    """The process that held the model ended unexpectedly."""

    exit_code = 7


class Unresponsive(ModelDied):
    """The process that holds the model runs but does not respond."""


EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "BadRequest",
    "Busy",
    "ContextOverflow",
    "DoesNotFit",
    "InUse",
    "IntegrityError",
    "InternalError",
    "MixcliError",
    "ModelDied",
    "NotInstalled",
    "NotReachable",
    "SomeFailed",
    "UnreadableFile",
    "Unresponsive",
    "UsageError",
]
