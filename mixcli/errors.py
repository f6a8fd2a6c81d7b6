"""Every error that mixcli shows to a person, each with its exit code.

    MixcliError                1  failure
    ├── UsageError             2  an option, name or value that cannot be meant
    ├── SomeFailed             3  some records failed, the rest is done
    ├── DoesNotFit             4  memory, disk or context is too small
    ├── IntegrityError         5  corrupt, truncated, mismatched or unsupported file
    ├── NotReachable           6  offline, gated, rate limited
    └── ModelDied              7  the model process ended by itself

A message is one sentence: cause, number, next step. It is raised where the fact is known and shown once, in cli.py.
quantize/ and profiles/ have trees of their own with the same `exit_code` attribute; an exception without one is a bug
and keeps its traceback. 130 (interrupted) and 141 (broken pipe) are given by cli.py.
"""


class MixcliError(Exception):
    """Base of all errors that are shown as one sentence."""

    exit_code = 1


class UsageError(MixcliError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class SomeFailed(MixcliError):
    """Some records failed; what worked is written."""

    exit_code = 3


class DoesNotFit(MixcliError):
    """Memory, disk or context is too small for what was asked."""

    exit_code = 4


class IntegrityError(MixcliError):
    """A file is not what it should be."""

    exit_code = 5


class NotReachable(MixcliError):
    """Something outside this machine could not be reached."""

    exit_code = 6


class ModelDied(MixcliError):
    """The process that held the model ended by itself."""

    exit_code = 7


EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_INTERRUPTED",
    "DoesNotFit",
    "IntegrityError",
    "MixcliError",
    "ModelDied",
    "NotReachable",
    "SomeFailed",
    "UsageError",
]
