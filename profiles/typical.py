"""Rates that are typical of a kind of processor, a core: they stand in where nobody has measured the machine that a plan is for."""

import tomllib
from functools import cache
from importlib.resources import files

from profiles.rates import HostRates, read_rates

TYPICAL = ("avx2", "avx512")  # the tables of typical.toml


@cache
def typical_rates(kind: str) -> HostRates:
    """Return the rates of one core of a kind of processor, which TYPICAL has."""
    table = tomllib.loads(files("profiles").joinpath("typical.toml").read_text("utf-8"))[kind]
    return read_rates(table, "typical")


__all__ = ["TYPICAL", "typical_rates"]
