"""Write docs/files.md: every file of the packages by folder, with the first line of its docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "files.md"
INTRODUCTION = """# Files

Every file of the three packages, with the first line of its docstring. Written by `make help`; a test keeps it true. How they work together:
[Architecture](architecture.md). Where a change belongs: [Contributing](contributing.md#where-a-change-belongs).
"""


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n", 1)[0].removesuffix(".").replace("|", "\\|")


def page() -> str:
    """Return the page: a heading and a list of files for each folder."""
    out = [INTRODUCTION]
    for package in ("mixcli", "quantize", "profiles"):
        folders = sorted({path.parent for path in (ROOT / package).rglob("*.py")})
        for folder in folders:
            doc = first_line(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
            out.append(f"## {folder.relative_to(ROOT)}/\n\n{doc}.\n")
            files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            out.append("".join(f"- `{path.name}`: {first_line(path)}\n" for path in files))
    return "\n".join(part for part in out if part)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
