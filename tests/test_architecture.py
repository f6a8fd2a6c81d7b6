"""The direction of imports and what start-up may cost, as docs/architecture.md draws them."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import file_lists
from tests.support.schedule import LONGEST

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mixcli", "quantize", "profiles")
PLACES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)  # of docstrings

# A room -> the rooms that it may import, from the top down. Its own room is always allowed, and of mixcli the errors; the longest name counts.
BASE = {"mixcli.system", "mixcli.request", "quantize", "profiles"}
CHILD = BASE | {"mixcli.host.protocol"}
STORE = BASE | {"mixcli.store"}
CLIENT = STORE | {"mixcli.host.protocol", "mixcli.client"}
PLANNING = CLIENT | {"mixcli.pull", "mixcli.planning"}
MAY_IMPORT: dict[str, set[str]] = {
    "mixcli": set(),
    "mixcli.__main__": {"mixcli.cli"},
    "mixcli.cli": {"mixcli.system"},  # commands are imported by name, one at a time
    "mixcli.commands": PLANNING
    | {"mixcli.run", "mixcli.batch", "mixcli.chat", "mixcli.serve", "mixcli.cluster"}
    | {"mixcli.insight", "mixcli.tailor", "mixcli.tools", "mixcli.monitor"},
    "mixcli.chat": PLANNING | {"mixcli.tools"},
    "mixcli.run": CLIENT | {"mixcli.batch"},  # a prompt for every line, or part, is a small batch
    "mixcli.batch": CLIENT | {"mixcli.cluster"},
    "mixcli.cluster": PLANNING | {"mixcli.serve"},
    "mixcli.serve": CHILD,  # of a host it knows the socket, the routes and the form of errors
    "mixcli.monitor": CLIENT,
    "mixcli.client": CLIENT,
    "mixcli.tailor": PLANNING | {"mixcli.insight"},
    "mixcli.insight": PLANNING | {"mixcli.batch"},  # the answers of two quants are two batches
    "mixcli.tools": BASE,
    "mixcli.planning": PLANNING,
    "mixcli.pull": STORE,
    "mixcli.store": BASE,
    # the child process
    "mixcli.host": CHILD | {"mixcli.engine", "mixcli.prompts", "mixcli.llama"},
    "mixcli.insight.compute": BASE | {"mixcli.insight", "mixcli.prompts", "mixcli.llama"},
    "mixcli.engine": BASE | {"mixcli.prompts", "mixcli.llama"},
    "mixcli.prompts": BASE | {"mixcli.llama"},
    "mixcli.llama": BASE,
    "mixcli.host.protocol": BASE,
    # what all stand on
    "mixcli.request": {"mixcli.system"},
    "mixcli.system": {"profiles", "quantize"},
    "mixcli.errors": set(),
    "quantize": set(),
    "profiles": set(),
}
LOOSE = {"__init__", "__main__", "cli", "errors"}  # the only files beside mixcli's rooms
CIRCLES: set[frozenset[str]] = set()  # of modules
ONLY_HERE = {
    "llama_cpp": {"mixcli.llama", "quantize.ggml"},
    "llguidance": {"mixcli.engine.constraint"},
    # a chat draws markdown row by row: rich's Text and cell widths, not its own printing
    "rich": {"mixcli.system.console", "mixcli.system.screen", "mixcli.system.tables", "mixcli.chat.view"},
    "prompt_toolkit": {"mixcli.chat.input", "mixcli.chat.complete"},
    "fastapi": {"mixcli.host.api"},
    "difflib": {"mixcli.system.text"},  # one search for the nearest name
    "ray": {"mixcli.batch.ray_backend", "mixcli.cluster"},
    "prometheus_client": {"mixcli.host.metrics", "mixcli.serve.metrics"},
    "mcp": {"mixcli.tools.mcp_server"},
    "matplotlib": {"mixcli.insight.svg"},
}


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Return the names and trees of all modules, parsed once for all tests."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append((name, ast.parse(path.read_text("utf-8"))))
    return tuple(found)


@cache
def imports_of(name: str) -> tuple[str, ...]:
    """Return what a module imports, by its name."""
    return tuple(imports(dict(modules())[name]))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def longest(name: str, table: Iterable[str]) -> str | None:
    return max((room for room in table if name == room or name.startswith(room + ".")), key=len, default=None)


def room_of(name: str) -> str:
    room = longest(name, MAY_IMPORT)
    assert room is not None
    assert room != "mixcli" or name == "mixcli", f"{name} stands in no room: give it a row in MAY_IMPORT"
    return room


def is_allowed(room: str, target: str) -> bool:
    """Return whether modules of a room may import this; the version of the package and its errors are everybody's."""
    if room_of(target) in {room, "mixcli.errors"} or target == "mixcli":
        return True
    return room_of(target) in MAY_IMPORT[room]


@cache
def import_graph() -> dict[str, set[str]]:
    """Return all imports between modules of the packages: late ones and those for type checkers too."""
    trees = dict(modules())
    graph = {}
    for name in trees:
        targets = {longest(target, trees) for target in imports_of(name) if target.split(".")[0] in PACKAGES}
        graph[name] = {target for target in targets if target and target != name}
    return graph


@pytest.mark.slow
def test_imports_point_down() -> None:
    wrong = {
        (name, target)
        for name, targets in import_graph().items()
        for target in targets
        if not is_allowed(room_of(name), target)
    }
    assert wrong == set()


def test_layers_have_an_order() -> None:
    """No room may import another one that may, over others, import it."""
    order = TopologicalSorter(
        {room: {one for one in below if one != room} for room, below in MAY_IMPORT.items()}
    )
    assert len(list(order.static_order())) == len(MAY_IMPORT)


def test_no_circles() -> None:
    """Modules do not import each other in a circle, however the import is hidden."""
    graph = import_graph()

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    below = {name: reached(name) for name in graph}
    circles = {
        frozenset(other for other in below[name] if name in below[other])
        for name in graph
        if name in below[name]
    }
    assert circles == CIRCLES


def test_only_four_files_stand_beside_the_rooms() -> None:
    assert {path.stem for path in (ROOT / "mixcli").glob("*.py")} == LOOSE


def test_a_wrong_import_would_be_seen() -> None:
    (target,) = imports(ast.parse("if TYPE_CHECKING:\n    from mixcli.llama.model import Model"))
    assert not is_allowed("mixcli.chat", target)
    assert not is_allowed("mixcli.system", "mixcli.store.store")
    assert is_allowed("mixcli.host", target)


# Rooms whose code meets the limits of size and whose signatures have no dictionaries with agreed keys.
NO_LONGER_THAN = {
    "mixcli.chat",
    "mixcli.commands",
    "mixcli.planning",
    "mixcli.pull",
    "mixcli.request",
    "mixcli.store",
    "mixcli.system",
    "mixcli.tools",
    "profiles",
    "quantize",
}
NO_LOOSE_DICTIONARIES = {
    "mixcli.chat",
    "mixcli.pull",
    "mixcli.request",
    "mixcli.store",
    "mixcli.system",
    "profiles",
}
MAX_FILE, MAX_CLASS, MAX_FUNCTION = 400, 250, 60  # lines


@pytest.mark.parametrize("room", sorted(NO_LONGER_THAN))
def test_files_classes_and_functions_are_no_longer_than_one_can_read(room: str) -> None:
    long = []
    for name, tree in modules():
        if longest(name, {room}):
            nodes = list(ast.walk(tree))
            if (n := max((getattr(node, "end_lineno", 0) or 0 for node in nodes), default=0)) > MAX_FILE:
                long.append(f"{name}: {n}")
            for node in nodes:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                limit = MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION
                if (n := length(node)) > limit:
                    long.append(f"{name}.{node.name}: {n}")
    assert long == []


@pytest.mark.parametrize("room", sorted(NO_LOOSE_DICTIONARIES))
def test_no_dictionary_with_agreed_keys_crosses_a_room(room: str) -> None:
    """A public signature has dataclasses, and where it is JSON of others, `object` values."""
    loose = [
        f"{name}.{node.name}"
        for name, tree in modules()
        if longest(name, {room})
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        for part in (node.args, node.returns)
        if part and "dict[str, Any]" in ast.unparse(part)
    ]
    assert loose == []


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_is_bound_in_one_place(library: str) -> None:
    importers = {name for name, _ in modules() if any(t.split(".")[0] == library for t in imports_of(name))}
    assert {name for name in importers if not longest(name, ONLY_HERE[library])} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_public_class_names_stand_once_in_a_package(package: str) -> None:
    places: dict[str, list[str]] = {}
    for name, tree in modules():
        if name.split(".")[0] == package:
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_lists_of_files_are_what_the_files_say() -> None:
    assert file_lists.PAGE.read_text("utf-8") == file_lists.page(), "run `make help`"


def test_docstrings_begin_as_terms_has_it() -> None:
    """A docstring says what a function returns or does; "Give", "Say" and "Tell" personify it."""
    begins = re.compile(r"(Give|Say|Tell)s?\b")
    wrong = [
        f"{name}: {text.splitlines()[0]}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, PLACES) and begins.match(text := ast.get_docstring(node) or "")
    ]
    assert wrong == []


def test_messages_say_what_is_not_so_plainly() -> None:
    """A message says "x is not a list", where "x is no list" reads like a riddle; "no such file" is plain."""
    riddle = re.compile(r"(?<!there )\b(is|are|was|were) (no|none)\b(?! longer)")
    wrong = []
    for name, tree in modules():
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, PLACES) and node.body and isinstance(node.body[0], ast.Expr)
        }
        wrong += [
            f"{name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
            if riddle.search(node.value)
        ]
    assert wrong == []


# Rooms within the limits of length, and with no agreed dictionary in a public signature; the list is to grow to all rooms.
WITHIN_LIMITS = [
    "mixcli.batch",
    "mixcli.client",
    "mixcli.cluster",
    "mixcli.engine",
    "mixcli.host",
    "mixcli.host.protocol",
    "mixcli.insight",
    "mixcli.insight.compute",
    "mixcli.llama",
    "mixcli.prompts",
    "mixcli.run",
    "mixcli.serve",
    "mixcli.tailor",
]
# rooms that read and write JSON, or hand on what others wrote: there its values are objects, which must be looked at before they are used
READS_JSON = ("mixcli.batch", "mixcli.client", "mixcli.host", "mixcli.insight", "mixcli.run", "mixcli.serve")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def length(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def too_long(name: str, tree: ast.Module) -> Iterator[str]:
    """Name the functions, classes and the file that have more lines than the limits."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and length(node) > MAX_FUNCTION:
            yield f"{name}: {node.name} has {length(node)} lines"
        if isinstance(node, ast.ClassDef) and length(node) > MAX_CLASS:
            yield f"{name}: {node.name} has {length(node)} lines"
    if tree.body and (tree.body[-1].end_lineno or 0) > MAX_FILE:
        yield f"{name} has {tree.body[-1].end_lineno} lines"


def agreed_dictionaries(name: str, tree: ast.Module) -> Iterator[str]:
    """Name the public functions and methods that take or return a dictionary whose keys only an agreement says."""
    value = "Any" if longest(name, READS_JSON) else "(Any|object)"
    for scope in [
        tree,
        *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"),
    ]:
        for node in scope.body:
            if isinstance(node, FUNCTIONS) and (node.name[0] != "_" or node.name == "__init__"):
                signature = (
                    f"{ast.unparse(node.args)} -> {ast.unparse(node.returns) if node.returns else None}"
                )
                if re.search(rf"\b(dict|Mapping|MutableMapping)\[str, {value}\]", signature):
                    yield f"{name}: {node.name}({signature})"


@pytest.mark.parametrize("room", WITHIN_LIMITS)
@pytest.mark.parametrize("check", [too_long, agreed_dictionaries])
def test_a_room_is_within_the_limits(room: str, check: Callable[[str, ast.Module], Iterator[str]]) -> None:
    found = [one for name, tree in modules() if room_of(name) == room for one in check(name, tree)]
    assert found == []


def test_what_is_beyond_the_limits_would_be_seen() -> None:
    long = ast.parse("class A:\n    def f(self, a: dict[str, Any]) -> None:\n" + "        pass\n" * 400)
    assert [one.split(" has ")[0] for one in too_long("m", long)] == ["m: A", "m: f", "m"]
    assert len(list(agreed_dictionaries("m", long))) == 1
    short = ast.parse("def f(a: dict[str, int]) -> None: ...\ndef _g() -> dict[str, Any]: ...")
    assert list(too_long("m", short)) == list(agreed_dictionaries("m", short)) == []


def test_files_of_tests_are_no_longer_than_one_can_read() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > MAX_FILE} == {}


def test_the_files_that_begin_a_run_of_all_tests_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / name).exists()] == []
    assert len(set(LONGEST)) == len(LONGEST)


HELP_IMPORTS = {  # what `mixcli --help` may import of the three packages
    "mixcli",
    "mixcli.system",
    "mixcli.cli",
    "mixcli.system.console",
    "mixcli.system.environment",
    "mixcli.errors",
    "mixcli.system.signals",
    "mixcli.system.text",
}
HEAVY = {"asyncio", "concurrent", "difflib", "email", "http", "json", "logging", "multiprocessing", "pathlib", "sqlite3", "ssl", "subprocess", "tomllib"}  # fmt: skip


def test_help_imports_only_click_and_what_starts_a_command() -> None:
    """A start costs what it imports: click, a few files of mixcli, and nothing else that is installed."""
    code = (
        "import click, sys; before = set(sys.modules); sys.argv = ['mixcli', '--help']\n"
        "from mixcli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Models:" in done.stdout
    imported = set(done.stderr.split())
    assert {name for name in imported if name.split(".")[0] in PACKAGES} <= HELP_IMPORTS
    tops = {name.split(".")[0] for name in imported} - set(PACKAGES) - {"click"}
    assert sorted(tops - sys.stdlib_module_names) == [], "nothing that is installed"
    assert sorted(tops & HEAVY) == []
