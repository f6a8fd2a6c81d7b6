"""The chat template of a checkpoint folder."""

from collections.abc import Mapping
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

from quantize.errors import MalformedFile
from quantize.source import Value, text, texts
from quantize.sources.folder import read_json_object_if_there
from quantize.sources.input_file import read_file

MAX_TEMPLATE_BYTES = 1 << 20


def chat_template_metadata(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, Value]:
    """Return the template keys: of tokenizer_config.json first, then chat_template.jinja, then chat_template.json."""
    template = tokenizer_config.get("chat_template")
    template = _beside(folder) if template is None else template
    if isinstance(template, str):
        return {"tokenizer.chat_template": text(template)}
    if isinstance(template, dict):  # as transformers keeps them once they are read
        template = [{"name": name, "template": body} for name, body in template.items()]
    return _named(template) if isinstance(template, list) else {}


def has_template(folder: Path) -> bool:
    """Return whether a folder brings a chat template of its own."""
    config = read_json_object_if_there(folder / "tokenizer_config.json")
    return bool(chat_template_metadata(folder, config))


def _beside(folder: Path) -> Any:
    if (path := folder / "chat_template.jinja").is_file():
        return _read(path)
    return read_json_object_if_there(folder / "chat_template.json").get("chat_template")


def _read(path: Path) -> str:
    try:
        return read_file(path, MAX_TEMPLATE_BYTES).decode("utf-8")
    except ValueError:
        raise MalformedFile(f"{path.name} is not UTF-8 text") from None


def _named(templates: list[Any]) -> dict[str, Value]:
    """Several templates (tool_use, rag...): each under its name, the default one where a single one would be."""
    by_name: dict[str, str] = {}
    for entry in templates:
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("template"), str)
            and isinstance(entry.get("name"), str)
        ):
            by_name["".join(c if c in ascii_letters + digits else "_" for c in entry["name"])] = entry[
                "template"
            ]
    default = by_name.pop("default", None)
    keys = {f"tokenizer.chat_template.{name}": text(template) for name, template in by_name.items()}
    if by_name:
        keys["tokenizer.chat_templates"] = texts(list(by_name))
    if default is not None:
        keys["tokenizer.chat_template"] = text(default)
    return keys
