"""Write the lists of files in docs/architecture.md: one line a file, the first sentence of its docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: written by `make help` -->", "<!-- /files -->"


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n", 1)[0].removesuffix(".").replace("|", "\\|")


def lists() -> str:
    """Return a heading and a list of files for each folder of the three packages."""
    out = []
    for package in ("mixcli", "quantize", "profiles"):
        folders = sorted({path.parent for path in (ROOT / package).rglob("*.py")})
        for folder in folders:
            doc = first_line(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
            out.append(f"### `{folder.relative_to(ROOT)}/`\n{doc}\n")
            files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            out.append("".join(f"- `{path.name}`: {first_line(path)}\n" for path in files))
    return "\n".join(out)


def with_lists(page: str) -> str:
    """Return the page with the lists as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{lists()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_lists(PAGE.read_text("utf-8")), "utf-8")
