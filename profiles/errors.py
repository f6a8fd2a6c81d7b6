"""What a planner refuses, with the exit code that a command line gives it."""


class DoesNotFit(Exception):
    """A model in the asked way needs more memory than there is; the message has need, have and ways out."""

    exit_code = 4


__all__ = ["DoesNotFit"]
