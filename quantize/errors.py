"""The errors of quantize/, each with its exit code.

    QuantizeError        1  anything below; also: a step of llama.cpp itself failed
    ├── CorruptFile      5  bytes that contradict themselves: truncated, out of bounds, missing shard
    │   └── MalformedFile 5 invalid content of a complete file, such as NaN weights: a download of the same bytes does not help
    ├── Unsupported      5  a whole file of a kind that is not handled: other architecture, pickle, unknown type
    ├── NoSpace          4  the disk has no room for the result
    ├── InUse            1  another process writes the same result
    ├── BadTarget        2  a place where no result can be written: a device, a folder, the source itself
    └── BadOption        2  an option whose value cannot be
        ├── NeedsOption  2  work that is only done with an option that is not given
        └── UnusedOption 2  an option that would change nothing in the result

Every message is one sentence with the cause, the number and the next step.
"""


class QuantizeError(Exception):
    """Base of every error that quantize/ raises for a person to read."""

    exit_code = 1


class CorruptFile(QuantizeError):
    """A file is damaged or contradicts itself."""

    exit_code = 5


class MalformedFile(CorruptFile):
    """A complete file with invalid content, made of a phrase such as "config.json has no vocab_size"; the next step is added."""

    def __str__(self) -> str:
        return (
            f"{self.args[0]}; the file is damaged or was written incorrectly: if its checksum differs from the repository's, "
            "download it again; otherwise use another repository"
        )


class Unsupported(QuantizeError):
    """A sound file of a kind that quantize/ does not handle."""

    exit_code = 5


class NoSpace(QuantizeError):
    """The disk has no room for what must be written."""

    exit_code = 4


class InUse(QuantizeError):
    """Another process writes the same result."""


class BadTarget(QuantizeError):
    """A path that no result can be written to."""

    exit_code = 2


class BadOption(QuantizeError):
    """An option whose value is invalid for every source."""

    exit_code = 2


class NeedsOption(BadOption):
    """Work that is only done with an option that is not given, such as an importance matrix or the permission to lose quality."""


class UnusedOption(BadOption):
    """An option that would change nothing in the result."""


__all__ = [
    "BadOption",
    "BadTarget",
    "CorruptFile",
    "InUse",
    "MalformedFile",
    "NeedsOption",
    "NoSpace",
    "QuantizeError",
    "Unsupported",
    "UnusedOption",
]
