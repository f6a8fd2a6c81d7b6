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

ONLY_HERE = {
    "llama_cpp": {
        "mixcli.llama.native",
        "mixcli.llama.model",
        "mixcli.llama.context",
        "mixcli.llama.batch",
        "mixcli.llama.candidates",
        "mixcli.llama.sampler",
        "quantize.ggml",
    },
    "llguidance": {"mixcli.engine.constraint"},
    # a chat draws markdown row by row: rich's Text and cell widths, not its own printing
    "rich": {"mixcli.system.console", "mixcli.chat.view.inline", "mixcli.chat.view.markdown"},
    "prompt_toolkit": {"mixcli.chat.input", "mixcli.chat.complete"},
    "fastapi": {"mixcli.host.app"},
    "difflib": {"mixcli.system.text"},  # one search for the nearest name
    "ray": {"mixcli.batch.ray_backend"},
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


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_is_bound_in_one_place(library: str) -> None:
    importers = {name for name, tree in modules() if any(t.split(".")[0] == library for t in imports(tree))}
    assert importers <= ONLY_HERE[library]


# what `mixcli --help` may import of the three packages; difflib is for names that nearly exist, json for the console
HELP_IMPORTS = {
    "mixcli",
    "mixcli.system",
    "mixcli.cli",
    "mixcli.system.console",
    "mixcli.errors",
    "mixcli.system.signals",
    "mixcli.system.text",
}
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
