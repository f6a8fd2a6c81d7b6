"""The direction of imports and what start-up may cost, as docs/architecture.md draws them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mixcli", "quantize", "profiles")
PLACES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)  # of docstrings

# A room -> the rooms that it may import. The longest matching name is a module's room; its own room is always allowed.
# mixcli's small helpers (errors, console, paths, locks, words, stdin) may be used by every room of mixcli.
BASE = {
    "mixcli.errors",
    "mixcli.paths",
    "mixcli.locks",
    "mixcli.words",
    "mixcli.console",
    "mixcli.json_cache",
    "mixcli.text",
    "mixcli.process_state",
    "mixcli.python_child",
}
MAY_IMPORT: dict[str, set[str]] = {
    "profiles": set(),
    "quantize": set(),
    "mixcli": set(),
    "mixcli.errors": set(),
    "mixcli.paths": set(),
    "mixcli.process_state": set(),
    "mixcli.locks": {"mixcli.paths", "mixcli.errors", "mixcli.process_state"},
    "mixcli.json_cache": {"mixcli.paths", "mixcli.locks", "mixcli.errors"},
    "mixcli.python_child": set(),
    "mixcli.lifeline": set(),
    "mixcli.os_errors": {"mixcli.errors", "mixcli.paths", "mixcli.text", "mixcli.hub.hub_cache"},
    "mixcli.words": {"mixcli.errors", "quantize.wording"},
    "mixcli.text": set(),
    "mixcli.console": {"mixcli.errors", "mixcli.text"},
    "mixcli.stdin": BASE,
    "mixcli.short_schema": {"mixcli.errors", "mixcli.text"},
    "mixcli.nvidia": set(),
    "mixcli.hardware": BASE | {"profiles", "mixcli.nvidia"},
    "mixcli.disk": BASE,
    "mixcli.host_rates": BASE | {"profiles", "mixcli.hardware"},
    "mixcli.engine.sampling_table": set(),
    "mixcli.engine": BASE | {"profiles", "quantize"},
    "mixcli.host.spec": BASE | {"profiles"},
    "mixcli.host.protocol": BASE,
    "mixcli.host.answers": BASE,
    "mixcli.host.events": BASE,
    "mixcli.host.refusal": BASE | {"mixcli.host.events", "mixcli.host.protocol"},
    "mixcli.host.client": BASE
    | {
        "mixcli.host.answers",
        "mixcli.host.events",
        "mixcli.host.protocol",
        "mixcli.host.refusal",
        "mixcli.host.record",
    },
    "mixcli.host.connection": set(),
    "mixcli.host.deadlines": set(),
    "mixcli.host.endpoint": BASE | {"mixcli.host.client", "mixcli.host.deadlines", "mixcli.host.events"},
    "mixcli.host.record": {"mixcli.process_state"},
    "mixcli.host.process": BASE
    | {
        "profiles",
        "mixcli.host.spec",
        "mixcli.host.protocol",
        "mixcli.host.client",
        "mixcli.host.child",
        "mixcli.host.record",
    },
    "mixcli.host.child": {"mixcli.errors", "mixcli.python_child"},
    "mixcli.file_types": BASE | {"quantize"},
    "mixcli.host": BASE
    | {"profiles", "mixcli.hardware", "mixcli.engine", "mixcli.host.spec", "mixcli.host.protocol"},
    "mixcli.hub": BASE
    | {"mixcli.file_types", "mixcli.hardware", "mixcli.engine.preflight", "profiles", "quantize"},
    "mixcli.answer": BASE | {"mixcli.host.client", "mixcli.host.process"},
    "mixcli.wish": {"profiles"},
    "mixcli.launch": BASE
    | {
        "mixcli.wish",
        "mixcli.hub",
        "mixcli.host.process",
        "mixcli.host.spec",
        "mixcli.insight.offers",
        "mixcli.placing",
    },
    "mixcli.placing": BASE
    | {
        "mixcli.wish",
        "profiles",
        "mixcli.insight",
        "mixcli.hub",
        "mixcli.host.spec",
        "mixcli.engine.preflight",
    },
    "mixcli.insight": BASE
    | {
        "profiles",
        "quantize",
        "mixcli.hardware",
        "mixcli.nvidia",
        "mixcli.disk",
        "mixcli.host_rates",
        "mixcli.hub",
        "mixcli.file_types",
        "mixcli.engine.preflight",
        "mixcli.wish",
    },
    "mixcli.template": {"mixcli.errors", "mixcli.text"},
    "mixcli.labels": BASE,
    "mixcli.form": BASE | {"mixcli.labels", "mixcli.short_schema", "mixcli.stdin"},
    "mixcli.batch.ray_runner": BASE
    | {"mixcli.batch", "mixcli.host.protocol", "mixcli.launch", "mixcli.template", "mixcli.wish"},
    "mixcli.batch": BASE
    | {
        "quantize.output_target",
        "mixcli.form",
        "mixcli.labels",
        "mixcli.stdin",
        "mixcli.template",
        "mixcli.host.answers",
        "mixcli.host.client",
        "mixcli.host.endpoint",
        "mixcli.host.process",
    },
    "mixcli.question": {"mixcli.errors", "mixcli.template"},
    "mixcli.mapreduce": BASE | {"mixcli.question", "mixcli.batch.job", "mixcli.batch.pool"},
    "mixcli.running": BASE
    | {
        "mixcli.answer",
        "mixcli.batch",
        "mixcli.form",
        "mixcli.mapreduce",
        "mixcli.question",
        "mixcli.stdin",
    },
    "mixcli.serve": BASE | {"mixcli.host.connection"},
    "mixcli.chat": BASE
    | {
        "mixcli.wish",
        "profiles",
        "mixcli.hub",
        "mixcli.launch",
        "mixcli.placing",
        "mixcli.insight",
        "mixcli.stdin",
        "mixcli.engine.sampling_table",
        "mixcli.host.child",
        "mixcli.host.client",
        "mixcli.host.process",
        "mixcli.host.spec",
        "mixcli.os_errors",
    },
    "mixcli.commands": BASE
    | {
        "mixcli.engine.sampling_table",
        "mixcli.wish",
        "profiles",
        "quantize",
        "mixcli.hub",
        "mixcli.launch",
        "mixcli.insight",
        "mixcli.hardware",
        "mixcli.answer",
        "mixcli.batch",
        "mixcli.form",
        "mixcli.question",
        "mixcli.template",
        "mixcli.running",
        "mixcli.serve",
        "mixcli.host.endpoint",
        "mixcli.stdin",
        "mixcli.short_schema",
        "mixcli.chat",
        "mixcli.host.process",
        "mixcli.file_types",
    },
    "mixcli.signals": set(),
    "mixcli.cli": BASE | {"mixcli.os_errors", "mixcli.signals", "mixcli.stdin"},
    "mixcli.__main__": {"mixcli.cli"},
}
ONLY_HERE = {
    "llama_cpp": {"mixcli.engine.llama", "quantize.ggml"},
    "llguidance": {"mixcli.engine.constraint"},
    # a chat draws markdown row by row: rich's Text and cell widths, not its own printing
    "rich": {"mixcli.console", "mixcli.chat.inline", "mixcli.chat.markdown"},
    "prompt_toolkit": {"mixcli.chat.input", "mixcli.chat.complete"},
    "fastapi": {"mixcli.host.app"},
    "difflib": {"mixcli.text"},  # one search for the nearest name
    "ray": {"mixcli.batch.ray_runner"},
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def longest(name: str, table: set[str]) -> str | None:
    return max((room for room in table if name == room or name.startswith(room + ".")), key=len, default=None)


def test_imports_point_one_way() -> None:
    wrong = []
    for name, tree in modules():
        room = longest(name, set(MAY_IMPORT))
        assert room is not None, f"{name} stands in no room: give it a row in MAY_IMPORT"
        allowed = MAY_IMPORT[room] | {room}
        for target in imports(tree):
            if (
                target.split(".")[0] in PACKAGES
                and target != "mixcli.__version__"
                and not longest(target, allowed)
            ):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


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


def test_a_wrong_import_would_be_seen() -> None:
    tree = ast.parse("from mixcli.engine.llama import Model")
    assert [
        t
        for t in imports(tree)
        if longest(t, MAY_IMPORT["mixcli.chat"] | {"mixcli.chat"}) in (None, "mixcli")
    ]


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_is_bound_in_one_place(library: str) -> None:
    importers = {name for name, tree in modules() if any(t.split(".")[0] == library for t in imports(tree))}
    assert importers <= ONLY_HERE[library]


# what `mixcli --help` may import of the three packages; difflib is for names that nearly exist, json for the console
HELP_IMPORTS = {"mixcli", "mixcli.cli", "mixcli.console", "mixcli.errors", "mixcli.signals", "mixcli.text"}
HEAVY = {"asyncio", "concurrent", "email", "http", "logging", "multiprocessing", "sqlite3", "ssl", "subprocess", "tomllib"}  # fmt: skip


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
