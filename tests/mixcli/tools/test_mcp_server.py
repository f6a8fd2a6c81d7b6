"""A real MCP server, written with the official package, as a source of tools."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from mixcli.errors import MixcliError, UsageError
from mixcli.request.prompt import FunctionCall
from mixcli.system.process_state import born
from mixcli.tools.json_file import ServerCommand
from mixcli.tools.mcp_server import McpTools
from mixcli.tools.opening import open_tools
from mixcli.tools.toolbox import Toolbox, ToolFailed
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="mcp is not installed")

SERVER = '''
import json
import os
import sys

import anyio
from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("numbers")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def variables() -> str:
    """Return the names of the variables, and the process."""
    return f"{' '.join(os.environ)}|{os.getpid()}"


@server.tool()
def picture() -> Image:
    """Return a picture."""
    return Image(data=b"12345678", format="png")


@server.tool()
def fails() -> str:
    """Fail."""
    raise ValueError("no")


@server.tool()
async def waits(path: str) -> str:
    """Wait for longer than anybody does."""
    open(path, "w").close()
    await anyio.sleep(1000)
    return ""


@server.tool()
def dies() -> str:
    """End the process."""
    print("out of cheese", file=sys.stderr, flush=True)
    os._exit(3)


server.run()
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "server.py"
    path.write_text(SERVER)
    return path


@pytest.fixture(scope="module")
def tools(script: Path) -> Iterator[McpTools]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_secret")
        tools = McpTools(ServerCommand("numbers", sys.executable, [str(script)], {"CITY": "Ulm"}))
    yield tools
    tools.close()


def test_tools_are_described_as_the_server_does(tools: McpTools) -> None:
    add = tools.specs[0]
    assert (add.name, add.description) == ("add", "Add two numbers.")
    assert add.parameters["required"] == ["a", "b"]


def test_a_call_gets_the_text_of_its_result(tools: McpTools) -> None:
    assert tools.call("add", {"a": 1, "b": 2}) == "3"
    assert tools.call("picture", {}) == "[image, image/png, 9 bytes: not shown]"


def test_what_the_server_refuses_is_told_to_the_model(tools: McpTools) -> None:
    with pytest.raises(ToolFailed, match="valid integer"):
        tools.call("add", {"a": "x", "b": 2})
    result = Toolbox([tools]).call(FunctionCall("1", "fails", "{}"))
    assert result.is_error and result.text.startswith("Error: ")


def test_a_server_gets_no_variables_but_its_own_and_what_every_program_needs(tools: McpTools) -> None:
    names = set(tools.call("variables", {}).partition("|")[0].split())
    assert "CITY" in names
    assert names <= {"CITY", "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE"}


def test_ctrl_c_ends_a_call_and_not_the_server(tools: McpTools, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def interrupt() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        tools.call("waits", {"path": str(begun)})
    assert tools.call("add", {"a": 1, "b": 2}) == "3"


def test_a_server_that_dies_is_named_and_one_that_is_closed_ends(script: Path) -> None:
    word = shlex.join([sys.executable, str(script)])
    with open_tools([word], to_run=True) as toolbox:
        pid = int(toolbox.call(FunctionCall("1", "variables", "{}")).text.partition("|")[2])
        for name in ("dies", "add"):
            result = toolbox.call(FunctionCall("1", name, "{}"))
            assert (
                result.text
                == f"Error: the MCP server {word!r} failed: it has ended; its last output: out of cheese"
            )
    assert not born(pid)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('hello')", "the MCP server 'x' cannot be used: it has ended"),
        ("raise SystemExit('no license')", "it has ended; its last output: no license"),
    ],
)
def test_a_program_that_is_not_a_server_is_named(code: str, message: str) -> None:
    with pytest.raises(MixcliError, match=message):
        McpTools(ServerCommand("x", sys.executable, ["-c", code]))


ANSWERS = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "initialize":
        version = 7 if MODE == "wrong" else asked["params"]["protocolVersion"]
        about = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    elif method == "tools/list":
        schema = {"type": "banana" if MODE == "schema" else "object"}
        if MODE == "nan":
            schema["properties"] = {"a": {"minimum": float("nan")}}
        tools = [{"name": f"t{i}", "inputSchema": schema} for i in range(600 if MODE == "many" else 1)]
        about = {"tools": tools, **({"nextCursor": "x"} if MODE == "endless" else {})}
    else:
        about = None
    if "id" in asked:
        said = {"result": about} if about else {"error": {"code": -32601, "message": "no such method"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)
"""


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("wrong", "its response violates the protocol: "),
        ("schema", "its response violates the protocol: "),
        ("endless", "its list of tools has more than 100 pages"),
        ("many", "it has more than 512 tools; start it with fewer"),
    ],
)
def test_a_server_that_answers_wrongly_or_without_end_is_named(mode: str, message: str) -> None:
    with pytest.raises(MixcliError) as caught:
        McpTools(ServerCommand("x", sys.executable, ["-c", f"MODE = {mode!r}\n{ANSWERS}"]))
    assert str(caught.value).startswith(f"the MCP server 'x' cannot be used: {message}")
    assert "\n" not in str(caught.value)


def test_a_schema_that_is_not_json_is_refused_by_the_names_of_its_server_and_tool(tmp_path: Path) -> None:
    server = {"command": sys.executable, "args": ["-c", f"MODE = 'nan'\n{ANSWERS}"]}
    path = tmp_path / "servers.json"
    path.write_text(json.dumps({"mcpServers": {"weather": server}}))
    with pytest.raises(UsageError, match=r"^--tools weather: tool t0: the JSON schema has NaN or infinity"):
        open_tools([str(path)], to_run=True)


KILLED = """
import os, signal, sys
from mixcli.tools.json_file import ServerCommand
from mixcli.tools.mcp_server import McpTools
tools = McpTools(ServerCommand("x", sys.executable, ["-c", sys.argv[1]]))
print(tools.specs[0].description, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_ignores_its_input_ends_with_a_command_that_is_killed() -> None:
    server = f"MODE = ''\n{ANSWERS}import time\ntime.sleep(600)".replace(
        '"inputSchema"', '"description": str(__import__("os").getpid()), "inputSchema"'
    )
    done = subprocess.run(
        [sys.executable, "-c", KILLED, server], check=False, stdout=subprocess.PIPE, text=True, timeout=120
    )
    pid = int(done.stdout)
    wait_for(lambda: not born(pid))
