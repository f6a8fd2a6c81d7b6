"""Read a docstring: what a function does, and what its parameters mean, in Google's, NumPy's or Sphinx' style."""

import inspect
import re

_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Params|Attributes|Returns?|Yields?|Raises|Examples?|Notes?|See Also|Warnings?)\s*:?"
)
_OF_PARAMETERS = ("Arg", "Param")
_ENTRY = re.compile(r"(\s*)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(\w+):\s*(.*)")


def parse(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section, and the meaning of each parameter that is described."""
    text: list[str] = []
    found: dict[str, str] = {}
    section, indent, name = "text", -1, ""
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if match := _SPHINX.match(line):
            section, indent, name = "parameters", 0, match[1]
            found[name] = match[2]
        elif line.startswith(":") or (not depth and _SECTION.fullmatch(line.strip())):
            section = "parameters" if line.startswith(_OF_PARAMETERS) else "other"
            indent, name = -1, ""
        elif section == "text":
            text.append(line)
        elif section == "parameters" and line.strip() and set(line.strip()) != {"-"}:
            match = _ENTRY.fullmatch(line) if indent in (-1, depth) else None
            if match:
                indent, name = depth, match[2]
                found[name] = match[3] if depth else ""  # NumPy writes the type there
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return "\n".join(text).strip(), {one: meaning for one, meaning in found.items() if meaning}


__all__ = ["parse"]
