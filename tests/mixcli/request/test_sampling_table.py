"""One table of bounds: `/set`, the command line, the HTTP API and the engine accept and refuse the same values."""

import ast
import math
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mixcli.commands.options import Sampling, sampling_options
from mixcli.engine.sampling import SamplingParams
from mixcli.errors import BadRequest, MixcliError, UsageError
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.json_body import parsed
from mixcli.request.sampling_table import (
    API_TEMPERATURE,
    CHAT_TEMPERATURE,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    RANGES,
    SCRIPT_TEMPERATURE,
)
from mixcli.request.settings import TABLE, ChatSettings


@click.command()
@sampling_options
def options(sampling: Sampling) -> None:
    """Print nothing; only the options are tried."""


OPTIONS = {param.name: param.opts[0] for param in options.params}


def by_engine(name: str, value: float) -> bool:
    try:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    except BadRequest as error:
        assert error.param == name
        return False
    return True


def by_api(name: str, text: str) -> bool:
    body = f'{{"messages": [{{"role": "user", "content": "Hi"}}], "{name}": {text}}}'
    try:
        parsed(ChatRequest, body.encode()).question()
    except BadRequest as error:
        assert error.param == name
        assert name in str(error)
        return False
    return True


def by_set(name: str, text: str) -> bool:
    try:
        ChatSettings().with_text(name, text)
    except UsageError as error:
        assert RANGES[name].text in str(error)
        return False
    return True


def by_option(name: str, text: str) -> bool:
    done = CliRunner().invoke(options, [f"{OPTIONS[name]}={text}"], standalone_mode=False)
    if done.exception is not None:
        assert isinstance(done.exception, click.BadParameter | MixcliError), done.exception
        assert RANGES[name].text in str(done.exception)
    return done.exception is None


def values(name: str) -> list[str]:
    """The ends of a range, what lies just beside them, and numbers that are none."""
    limits = RANGES[name]
    if limits.whole:
        ends = [int(limits.least), int(limits.greatest)]
        inner = [*ends, ends[0] - 1, ends[1] + 1, -1, 0, 1, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30]
        return [*map(str, inner), "1" * 400, "NaN", "1e400", "2.5"]
    inner = [limits.least, limits.greatest, 0.5, 1.5, -0.5]
    inner += [
        math.nextafter(end, way) for end in (limits.least, limits.greatest) for way in (-math.inf, math.inf)
    ]
    return [*map(repr, inner), "-0.0", "0", "1", "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400]


# llama-server's and vLLM's way to write no limit
ALSO_OVER_HTTP = {("max_tokens", "-1"), ("top_k", "-1")}


@pytest.mark.parametrize("name", RANGES)
def test_all_four_agree(name: str) -> None:
    limits = RANGES[name]
    for text in values(name):
        number = float(text) if not limits.whole or not text.lstrip("-").isdigit() else int(text)
        expected = limits.allows(number)
        assert by_engine(name, number) == expected, text
        assert by_api(name, text) == (expected or (name, text) in ALSO_OVER_HTTP), text
        if name in TABLE:
            assert by_set(name, text) == expected, text
        if name in OPTIONS:
            assert by_option(name, text) == expected, text


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("text", ["true", '"1"', "[1]", "{}"])
def test_only_numbers_are_numbers(name: str, text: str) -> None:
    assert not by_api(name, text)


def test_every_parameter_of_the_engine_that_is_a_number_has_a_row() -> None:
    fields = SamplingParams.__dataclass_fields__
    assert set(RANGES) == set(fields) - {"stop", "logit_bias", "dry_sequence_breakers"}


@pytest.mark.parametrize("name", RANGES)
def test_help_is_written_once(name: str) -> None:
    text = RANGES[name].help
    for param in options.params:
        if param.name == name:
            assert isinstance(param, click.Option) and param.help == f"{text[0].upper()}{text[1:]}."
    if name in TABLE:
        assert TABLE[name].meaning == text
    assert bool(text) == (name in TABLE), "a parameter with help can be chosen with /set"


def test_the_api_has_every_row_with_its_type() -> None:
    for name, row in RANGES.items():
        assert by_api(name, "null"), "null is the default"
        assert by_api(name, "1.5") == (not row.whole and row.allows(1.5)), name


def test_default_temperatures() -> None:
    """An API client gets llama.cpp's, a chat its own, a script the most likely token."""
    assert SamplingParams().temperature == API_TEMPERATURE == 0.8
    assert ChatSettings().body()["temperature"] == CHAT_TEMPERATURE == 0.7
    assert SCRIPT_TEMPERATURE == 0


def test_no_other_file_has_a_default_temperature() -> None:
    """A number beside the name: as an argument, a default, a value of a dictionary or of a class."""

    def is_number(node: ast.expr | None) -> bool:
        return isinstance(node, ast.Constant) and type(node.value) in (int, float)

    def has_default(node: ast.AST) -> bool:
        if isinstance(node, ast.keyword):
            return node.arg == "temperature" and is_number(node.value)
        if isinstance(node, ast.AnnAssign):
            return ast.unparse(node.target) == "temperature" and is_number(node.value)
        if isinstance(node, ast.Dict):
            return any(
                isinstance(key, ast.Constant) and key.value == "temperature" and is_number(value)
                for key, value in zip(node.keys, node.values, strict=True)
            )
        return False

    root = Path(__file__).parents[3] / "mixcli"
    found = [
        f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if has_default(node)
    ]
    assert found == []


def test_top_p_0_can_be_set() -> None:
    assert ChatSettings().with_text("top_p", "0").body()["top_p"] == 0


def test_a_stored_value_that_no_answer_would_take_is_left_out() -> None:
    assert ChatSettings.of(
        {"repeat_penalty": 0, "typical_p": 0.0, "temperature": math.nan, "top_k": 5}
    ).chosen() == {"top_k": 5}


@pytest.mark.parametrize("stop", ["", "x" * (MAX_STOP_LENGTH + 1), "\\ud800"])
def test_a_stop_text_is_refused_where_it_is_said(stop: str) -> None:
    with pytest.raises(UsageError):
        ChatSettings().with_text("stop", stop)


def test_too_many_stops_are_refused_where_they_are_said() -> None:
    done = CliRunner().invoke(options, ["--stop", "a"] * (MAX_STOPS + 1), standalone_mode=False)
    assert isinstance(done.exception, UsageError)
    assert f"the limit is {MAX_STOPS}" in str(done.exception)
