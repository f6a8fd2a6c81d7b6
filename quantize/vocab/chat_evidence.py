"""Decide whether a model without a chat template was trained for chats.

Mistral's tokenizers have the markers of a chat from version 2 on, in base models too: there the vectors of [INST] were never trained, and a
template that writes it makes the answers worse. llama.cpp's converter takes the template by the tokenizer's version alone; here a model must
say by one of its names that it is for chats.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantize.source import Value
from quantize.sources.checkpoint import Checkpoint

# Instruct and chat in any name; Mistral's models for code, mathematics and thought, which are trained on instructions and do not say so
_CHAT = re.compile(
    r"instruct|chat|(?<![a-z])it(?![a-z])|codestral|devstral|mathstral|magistral", re.IGNORECASE
)
_BASE = re.compile(r"(?<![a-z])(?:base|pretrain(?:ed)?)(?![a-z])", re.IGNORECASE)


def trained_for_chat(checkpoint: Checkpoint, general: Mapping[str, Value]) -> bool:
    """Return whether a model's names say so: its card, its folder or repository, and what config.json calls it."""
    config: Mapping[str, Any] = checkpoint.config
    folder = checkpoint.folder.absolute()
    names = [general[key].value for key in ("general.name", "general.finetune") if key in general]
    names += [config.get("_name_or_path"), folder.name, _called(folder)]
    said = [name for name in names if isinstance(name, str)]
    return any(map(_CHAT.search, said)) and not any(map(_BASE.search, said))


def _called(folder: Path) -> str:
    """Return the name of a checkpoint's folder, or of its repository in the Hugging Face cache, where folders are called by their commit."""
    return folder.parent.parent.name.rpartition("--")[2] if folder.parent.name == "snapshots" else folder.name


def template_note(
    checkpoint: Checkpoint, general: Mapping[str, Value], tokens: Mapping[str, Value], own: bool
) -> str | None:
    """Return what was decided about a template that the folder does not bring; `own` shows whether it brings one."""
    name = _called(checkpoint.folder.absolute())
    if own:
        return None
    if "tokenizer.chat_template" in tokens:
        return (
            f"{name} has no chat template; using Mistral's own, because its name says that it is a chat model"
        )
    if trained_for_chat(checkpoint, general):
        return (
            f"{name} has no chat template, and none is known for its tokenizer: the model will continue text"
        )
    return (
        f"{name} has no chat template, and its name contains neither Instruct nor Chat: it is treated as a base model, which continues text. "
        "If it is for chats, put its chat_template.jinja into the folder and convert it again"
    )
