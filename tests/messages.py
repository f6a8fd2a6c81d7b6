"""Write tests/messages.txt: every text of mixcli/, quantize/ and profiles/ that a user can meet, to be read in one go.

The texts are found by syntax: what a raise, a console call, a click option or a table of slash commands holds, and every
other literal of two words or more. Computed parts of an f-string stand in braces.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mixcli", "quantize", "profiles")
WORDS = re.compile(r"[A-Za-z]{2,}[,;:.)'`]* +(a +)?[(`'{]*[A-Za-z]{2,}")  # two words or more
WORD = re.compile(r"[A-Za-z]{2,}")
HOLE = re.compile(r"\{[^{}]*\}")
SHOWN_CALLS = {  # each text that they are given is a message, even of one word
    "note", "warn", "error", "line", "prose", "confirm", "progress", "table", "fail", "SlashCommand", "Setting"
}  # fmt: skip
SHOWN_OPTIONS = {"help", "short_help", "metavar", "epilog"}
HIDDEN_CALLS = {
    "cast", "compile", "TypeVar", "execute", "getattr", "declare_intrinsic", "Thread", "ThreadPoolExecutor"
}  # fmt: skip
# files whose texts no user meets: docstrings of compiled functions, grammars, and conversations that only templates and models see
UNMET = {
    "quantize/kernels/lanes.py",
    "mixcli/prompts/format_check.py",
    "mixcli/engine/answer_grammar.py",
    "mixcli/prompts/tool_text.py",
    "mixcli/insight/corpus/*.toml",
}
# what no person reads: SQL, code for a child process, LLVM, Jinja, regular expressions
CODE = re.compile(
    r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|BEGIN|COMMIT|DROP|ALTER|WHERE|ORDER BY|AND|import |from \w+ import"
    r"|declare |define |instr\(|substr\()|\bMATCH \?|\{%|%\w+ =|\(\?|\\[dws]"
)


class _Finder(ast.NodeVisitor):
    """Collect texts in source order, each with the function, class or table key that it stands in."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self._scope: list[str] = []
        self._shown = False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for one in node.decorator_list:
            self.visit(one)
        with self._in(node.name):
            if any(map(_makes_command, node.decorator_list)):
                self._add(ast.get_docstring(node) or "", shown=True)
            self.visit(node.args)
            self._visit_body(node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        with self._in(node.name):
            self._visit_body(node.body)

    def visit_Module(self, node: ast.Module) -> None:
        self._visit_body(node.body)

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is not None:
            self._visit_as(node.exc, shown=True)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Pass over what only a bug shows."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        """Pass over annotations."""

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None
            if key is not None and name is None:
                self.visit(key)
            with self._in(*([name] if name else [])):
                self.visit(value)

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in HIDDEN_CALLS:
            return
        shown = name in SHOWN_CALLS
        for one in node.args:
            self._visit_as(one, shown=shown)
        for option in node.keywords:
            self._visit_as(option.value, shown=shown or option.arg in SHOWN_OPTIONS)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        self._visit_as(node.slice, shown=False)

    def visit_Compare(self, node: ast.Compare) -> None:
        for one in (node.left, *node.comparators):
            self._visit_as(one, shown=False)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._add(node.value, shown=self._shown)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._add(_text(node), shown=self._shown)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if _is_text(node):
            self._add(_text(node), shown=self._shown)
        else:
            self.generic_visit(node)

    def _visit_body(self, body: list[ast.stmt]) -> None:
        for one in body:
            if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)):  # a docstring
                self.visit(one)

    def _visit_as(self, node: ast.AST, *, shown: bool) -> None:
        kept, self._shown = self._shown, shown
        self.visit(node)
        self._shown = kept

    @contextmanager
    def _in(self, *names: str) -> Iterator[None]:
        self._scope += names
        yield
        del self._scope[len(self._scope) - len(names) :]

    def _add(self, text: str, *, shown: bool) -> None:
        filled = HOLE.sub("xx", text)
        is_message = WORD.search(HOLE.sub("", text)) and (shown or WORDS.search(filled))
        if is_message and not CODE.search(text):
            self.found.append((".".join(self._scope), text))


def _makes_command(node: ast.expr) -> bool:
    """Return whether a decorator makes a click command, whose docstring is its help."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("command", "group")
    )


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (_is_text(node.left) or _is_text(node.right))
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.expr) -> str:
    """Return an expression as text, computed parts in braces."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case _:
            return f"{{{ast.unparse(node)}}}"


def _in_table(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a TOML value, each with its key."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _in_table(one, f"{key}.{name}".strip("."))
    elif isinstance(value, list):
        for one in value:
            yield from _in_table(one, key)
    elif isinstance(value, str) and WORDS.search(value):
        yield key, value


@cache
def texts_of(path: Path) -> list[tuple[str, str]]:
    """Return the texts of one file, each with the function or key that has it."""
    if any(path.match(unmet) for unmet in UNMET):
        return []
    source = path.read_text("utf-8")
    if path.suffix == ".toml":
        return list(_in_table(tomllib.loads(source)))
    finder = _Finder()
    finder.visit(ast.parse(source))
    return finder.found


def messages_page() -> str:
    """Return the whole page, sorted by file."""
    page = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.*")):
            if path.suffix in (".py", ".toml") and (found := texts_of(path)):
                page.append(f"\n# {path.relative_to(ROOT)}\n")
                for scope, text in found:
                    shown = text.strip().replace("\n", "\n    ")
                    page.append(f"{scope}: {shown}\n" if scope else f"{shown}\n")
    return "".join(page).lstrip("\n")


if __name__ == "__main__":
    sys.stdout.write(messages_page())
