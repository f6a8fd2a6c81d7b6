"""The small files of a checkpoint folder: JSON with limits, and names that stay inside the folder."""

import json
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile

MAX_JSON_BYTES = 1 << 28  # the largest tokenizer.json known has 34 MB


def read_json(path: Path) -> Any:
    """Read a JSON file; CorruptFile when it is huge, not UTF-8, not JSON or nested too deeply."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise CorruptFile(
            f"{path.name} has {size:,} bytes, more than the {MAX_JSON_BYTES:,} that are allowed."
        )
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise CorruptFile(f"{path.name} is nested too deeply to be read; get the file anew.") from None
    except ValueError as error:
        raise CorruptFile(f"{path.name} is not JSON ({error}); get the file anew.") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CorruptFile(f"{path.name} holds no JSON object; get the file anew.")
    return value


def read_json_object_if_there(path: Path) -> dict[str, Any]:
    """Read a JSON object, or give an empty one where there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def is_plain_name(name: object) -> bool:
    """Tell whether a name from a file is a plain base name: printable, no separators, no drive, no leading dot."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name.isprintable()
        and not name.startswith(".")
        and not any(c in name for c in '/\\:"*?<>|')
    )
