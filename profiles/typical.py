"""Typical CPU rates per core, by kind of processor, for machines that were not measured."""

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
