"""What a planner refuses, with the exit code that a command line gives it."""


class DoesNotFit(Exception):
    """A model in the asked way needs more memory than there is; the message has need, have and ways out."""

    exit_code = 4


class BadProfile(Exception):
    """A hardware profile that is not there or cannot be meant; the message names file and key."""

    exit_code = 2


__all__ = ["BadProfile", "DoesNotFit"]
