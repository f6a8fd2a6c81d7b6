"""The errors of the planner, each with its exit code."""

import json


def shown(value: object) -> str:
    """Return a value of a file for a sentence: a text in quotes, all else as TOML and JSON have it (true, 3, [1, 2])."""
    return (repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[
        :60
    ]


class DoesNotFit(Exception):
    """A model in the asked way needs more memory than there is; the message has need, have and ways out."""

    exit_code = 4


class BadProfile(Exception):
    """A hardware profile that is not there or is wrong; the message names file and key."""

    exit_code = 2


class UnknownProfile(BadProfile):
    """No profile has that `name`; `names` are those that there are."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(f"profile {name!r} not found; profiles are {', '.join(names)}")
        self.name = name
        self.names = names


class BadModel(Exception):
    """A model whose numbers contradict each other, or what llama.cpp can do with it; the message names key and value."""

    exit_code = 5


class BadRequest(Exception):
    """A request that no plan can keep on any machine; the message says what could be asked instead."""

    exit_code = 2


__all__ = ["BadModel", "BadProfile", "BadRequest", "DoesNotFit", "UnknownProfile", "shown"]
