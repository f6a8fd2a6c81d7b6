"""What --tools may name, and the tools of several sources in one box."""

import json
import sys
from pathlib import Path

import pytest

from mixcli.errors import BadRequest, MixcliError, UsageError
from mixcli.host.api.tool_schema import ToolDefinition, tool_use
from mixcli.request.prompt import FunctionCall
from mixcli.tools.json_file import ServerCommand, read
from mixcli.tools.opening import open_tools
from mixcli.tools.toolbox import Toolbox

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
DEEP: object = {}
for _ in range(33):
    DEEP = {"properties": {"a": DEEP}}


def written(folder: Path, value: object, name: str = "tools.json") -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def defined(folder: Path, value: object) -> Toolbox:
    return open_tools([str(written(folder, value))], to_run=False)


def test_definitions_are_read_with_and_without_function_around_them(tmp_path: Path) -> None:
    nested = {"type": "function", "function": {"name": "a", "description": "A.", "parameters": SCHEMA}}
    flat = {"type": "function", "name": "b", "parameters": SCHEMA}
    as_sent = [
        nested,
        {"type": "function", "function": {"name": "b", "parameters": SCHEMA}},
    ]
    assert defined(tmp_path, [nested, flat]).definitions() == as_sent
    assert defined(tmp_path, {"model": "x", "tools": [nested, flat]}).definitions() == as_sent
    assert defined(tmp_path, nested).definitions() == as_sent[:1]


def test_definitions_of_anthropic_and_mcp_have_their_parameters_and_strict_ones_stay_strict(
    tmp_path: Path,
) -> None:
    theirs = {"name": "a", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}
    listed = {"name": "b", "title": "B", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}
    strict = {"name": "c", "parameters": SCHEMA, "strict": True, "description": None}
    specs = defined(tmp_path, [theirs, listed, strict]).specs
    assert [(spec.name, spec.parameters, spec.strict) for spec in specs] == [
        ("a", SCHEMA, False),
        ("b", SCHEMA, False),
        ("c", SCHEMA, True),
    ]
    assert specs[2].to_json()["function"] == {"name": "c", "parameters": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON: "),
        ([], "has no tools"),
        ([1], r"tools\.0 must be an object"),
        ([{"name": "get weather"}], r"tools\.0\.name must be 1 to 64 letters"),
        ([{"function": {"name": "a", "parameters": "x"}}], r"tools\.0\.function\.parameters must be a JSON schema"),
        ([{"name": "f", "parameters": DEEP}], r"tools\.json: tool f: the JSON schema is more than 64 levels deep"),
        ([{"name": "f", "parameters": {"enum": ["x" * (1 << 18)]}}], r"tool f: the JSON schema is 262,\d+ bytes long; the limit"),
        ('[{"name": "f", "parameters": {"minimum": NaN}}]', r"tools\.json is not JSON: NaN is not a JSON number"),
        ('[{"name": "f", "parameters": {"minimum": 1e999}}]', r"is not JSON: the number 1e999 is too large"),
        ('[{"name": "f", "parameters": {}, "parameters": {"type": "object"}}]', "is not JSON: 'parameters' is given twice"),
        ([{"name": "f"}, {"name": "g"}, {"name": "f"}], "tools.json defines the tool f twice; rename one"),
        ([{"name": "f", "parameters": {"const": "\ud800"}}], r"tool f: the JSON schema contains a lone surrogate"),
        ([{"name": "f", "description": "\ud800"}], r"tool f: its description contains a lone surrogate"),
        ([{"name": "f", "parametres": {}}], r"tools\.0\.parametres is not a field of a tool; did you mean parameters"),
        ([{"name": "f", "parameters": {}, "input_schema": {}}], r"tools\.0 has parameters and input_schema; remove one"),
        ([{"name": "f", "input_schema": 3}], r"tools\.0\.input_schema must be a JSON schema"),
        ([{"name": "f", "strict": "yes"}], r"tools\.0\.strict must be true or false"),
        ([{"type": "web_search"}], r'tools\.0\.type must be function, not "web_search"'),
        ({"mcpServers": {}}, "mcpServers must be an object of servers"),
        ({"mcpServers": {"a": {"url": "https://x"}}}, r"mcpServers\.a has a url; only servers that a command starts"),
        ({"mcpServers": {"a": {"command": "x", "args": [1]}}}, r"mcpServers\.a\.args must be a list of strings"),
        ({"mcpServers": {"a": {"command": "x", "env": {"K": 1}}}}, r"mcpServers\.a\.env must be"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_named(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        defined(tmp_path, value)


def test_the_settings_of_other_clients_name_servers(tmp_path: Path) -> None:
    """`mcpServers`, as Claude Desktop, Cursor and others write it."""
    value = {"mcpServers": {"files": {"command": "npx", "args": ["-y", "x"], "env": {"KEY": "k"}}}}
    assert read(written(tmp_path, value)) == [ServerCommand("files", "npx", ["-y", "x"], {"KEY": "k"})]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("https://example.org/mcp", "addresses are not supported; pass the command that starts the server"),
        (
            "no-such-command --x",
            "command no-such-command not found; pass a .py or .json file, or the command",
        ),
        ("./no-such-server", "no such file: ./no-such-server"),
        (
            "./notes.txt",
            r"--tools \./notes\.txt is neither a \.py or \.json file nor executable; pass a \.py",
        ),
        ("wether.py", r"no such file: wether\.py; did you mean weather\.py\?"),
        ("tools.json", r"no such file: tools\.json"),
        ("sh -c 'x", "No closing quotation"),
        (" ", "--tools is empty; pass a"),
        ("folder.py", r"folder\.py is a folder"),
    ],
)
def test_a_word_that_names_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weather.py").touch()
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=message):
        open_tools([word], to_run=True)


def test_definitions_alone_cannot_be_run(tmp_path: Path) -> None:
    path = written(tmp_path, [{"name": "a"}])
    with pytest.raises(UsageError, match="only defines tools and cannot run them"):
        open_tools([str(path)], to_run=True)
    with open_tools([str(path)], to_run=False) as toolbox:
        assert (
            toolbox.call(FunctionCall("1", "a", "{}")).text
            == "Error: a is only defined in tools.json and cannot be run"
        )


def test_without_the_package_for_servers_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)  # as where it is not installed
    with pytest.raises(MixcliError, match=r"is not installed; run pip install '\.\[tools\]'"):
        open_tools(["sh -c true"], to_run=True)


def test_a_command_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--tools '' x: the command is empty"):
        open_tools(["'' x"], to_run=True)


def test_tools_of_the_same_name_get_a_number(tmp_path: Path) -> None:
    paths = [written(tmp_path, [{"name": "a"}], name) for name in ("one.json", "two.json")]
    with open_tools([str(path) for path in paths], to_run=False) as toolbox:
        assert [spec.name for spec in toolbox.specs] == ["a", "a_2"]
        assert [toolbox.source_of(spec.name) for spec in toolbox.specs] == ["one.json", "two.json"]
        assert toolbox.notes == ["two.json: the tool a is called a_2 here"]


def test_the_host_refuses_a_deep_schema_by_the_name_of_its_tool() -> None:
    tool = ToolDefinition.model_validate({"function": {"name": "f", "parameters": DEEP}})
    with pytest.raises(BadRequest, match=r"^tool f: the JSON schema is more than 64 levels deep") as caught:
        tool_use([tool], None, parallel=True)
    assert caught.value.param == "tools.0.function.parameters"
