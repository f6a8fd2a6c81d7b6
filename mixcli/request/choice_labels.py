"""Parse the labels of --choice: separated by commas or line breaks, quoted as in CSV where a label has a comma, or a JSON array.

    spam,ham          "Smith, John","Doe, Jane"          ["a", "b"]

Text that could be read in two ways (a stray quote, single quotes around commas, a backslash before a comma) is refused.
"""

import json
import re
import unicodedata

from mixcli.errors import UsageError
from mixcli.system.console import console

_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"[^\S\n]*(?=[,\n]|$)')
_BARE = re.compile(r"[^,\n]*")
_PAIRS = {"'": "'", "‘": "’", "“": "”", "„": "“", "«": "»", "`": "`"}


def labels_of(text: str) -> tuple[str, ...]:
    """Return the labels of --choice, at least two, with surrounding spaces removed. Raises UsageError that names the invalid label."""
    labels = _json_array(text) if text.strip().startswith("[") else _separated(text)
    labels = [label.strip() for label in labels]
    for number, label in enumerate(labels, 1):
        if not label and len(labels) > 1:
            raise UsageError(f"--choice: label {number} of {len(labels)} is empty; use --choice spam,ham")
        if label in labels[: number - 1]:
            raise UsageError(f"--choice has the label {label!r} twice; remove one of them")
    if len(labels) < 2:
        raise UsageError(
            f"--choice needs at least two labels, and {text!r:.200} has {len([*filter(None, labels)])}; use --choice spam,ham"
        )
    _warn_similar(labels)
    return tuple(labels)


def _json_array(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise UsageError(
            "--choice begins with '[' and is not a JSON array of strings; use --choice spam,ham, "
            "and put a label that begins with '[' in double quotes"
        )
    return found


def _separated(text: str) -> list[str]:
    found, signs = _split(text.strip().replace("\r\n", "\n"))
    if "\n" in signs and "," in signs:  # trailing commas of a list, or commas inside labels?
        lines = text.strip().splitlines()
        if not all(line.rstrip().endswith(",") for line in lines[:-1] if line.strip()):
            raise UsageError(
                "--choice separates labels by line breaks and commas; use one of the two, and put a label with a comma in double quotes"
            )
    if "\n" in signs:
        return [label for label in found if label.strip()]
    return found


def _split(text: str) -> tuple[list[str], list[str]]:
    """Split a text at commas and line breaks outside quotes; return the labels, and the separator after each but the last."""
    labels: list[str] = []
    bare_labels: list[str] = []
    signs: list[str] = []
    at = 0
    while True:
        quoted = _QUOTED.match(text, at)
        if quoted:
            label = quoted[1].replace('""', '"')
        else:
            bare = _BARE.match(text, at)
            label = bare[0] if bare else ""
            _check_bare(label)
            bare_labels.append(label)
        labels.append(label)
        at = quoted.end() if quoted else at + len(label)
        if at >= len(text):
            _check_pairs(bare_labels)
            return labels, signs
        signs.append(text[at])
        at += 1


def _check_bare(label: str) -> None:
    word = label.strip()
    if word.startswith('"'):
        raise UsageError(
            f"--choice: the quote that opens at {word[:40]} is not closed; close it before the next comma"
        )
    if word.endswith("\\"):
        raise UsageError(
            f"--choice: {word[:40]!r} ends with a backslash, which does not escape a comma; put a label with a comma in double quotes"
        )
    if in_quotes(word):
        raise UsageError(
            f"--choice: the quotes of {word[:40]} would be part of the label; use plain double quotes, or none"
        )


def in_quotes(label: str) -> bool:
    """Return whether a label stands in quotes, which would be part of it."""
    closing = {**_PAIRS, '"': '"'}.get(label[:1], "")
    return bool(closing) and len(label) > 1 and label.endswith(closing)


def _check_pairs(labels: list[str]) -> None:
    """Raise UsageError for 'Smith, John' in quotes other than CSV's: its two halves would become two labels."""
    for opening, closing in _PAIRS.items():
        opened = next((label for label in labels if label.strip().startswith(opening)), None)
        if opened and any(label.strip().endswith(closing) for label in labels):
            raise UsageError(
                f"--choice: {opened.strip()[:40]} begins with {opening}; put a label with a comma in plain double quotes"
            )


def _warn_similar(labels: list[str]) -> None:
    """Warn about labels that differ only in case, spaces or Unicode normalization."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(folded(label), label)
        if other != label:
            console.warn(
                f"--choice: {other!r} and {label!r} differ only in case, spaces or Unicode normalization; a model can hardly tell them apart"
            )


def folded(label: str) -> str:
    """Return a label in the form in which labels are compared: case, spaces and Unicode normalization removed."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


__all__ = ["folded", "in_quotes", "labels_of"]
