"""Text at the edges: what a shell, a file or a pipe holds becomes text that can be sent, kept and shown.

Python hands over bytes that are not UTF-8 as lone surrogates, and JSON can spell others; neither can be encoded again. `clean` makes text of
them. Paths are not cleaned before they are opened: their bytes are their name. They are cleaned where they are shown.
"""

import codecs
import os
import re
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SURROGATE = re.compile("[\ud800-\udfff]")
_LOOK = 1 << 12  # bytes that tell what kind of data something is
_LONGEST_NAME = 200  # characters that are compared: comparing takes their square
_MOST_FILES = 2000  # of a folder, that are looked at for a name
_ICONV = "convert it first: iconv -f {} -t UTF-8"

# how data begins that is not plain text: its name, and what makes text of it
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (codecs.BOM_UTF32_LE, "UTF-32", _ICONV.format("UTF-32")),
    (codecs.BOM_UTF32_BE, "UTF-32", _ICONV.format("UTF-32")),
    (codecs.BOM_UTF16_LE, "UTF-16", _ICONV.format("UTF-16")),
    (codecs.BOM_UTF16_BE, "UTF-16", _ICONV.format("UTF-16")),
    (b"\x1f\x8b", "gzip data", "unpack it first: gunzip -c"),
    (b"BZh", "bzip2 data", "unpack it first: bunzip2 -c"),
    (b"\xfd7zXZ\0", "xz data", "unpack it first: xz -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "unpack it first: zstd -dc"),
    (b"PK\x03\x04", "a zip archive or an Office document", "unpack it, or export its text first"),
    (b"%PDF-", "a PDF", "make text of it first: pdftotext FILE -"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "export its text first"),
    (b"GGUF", "a GGUF model", "pass a model with -m and a text as input"),
    (b"\x7fELF", "a program", "give a text"),
    (b"\x89PNG", "an image", "give a text"),
    (b"\xff\xd8\xff", "an image", "give a text"),
    (b"GIF8", "an image", "give a text"),
    (b"SQLite format 3\0", "a SQLite database", "export its text first"),
    (b"PAR1", "a Parquet file", "convert it to JSONL or CSV first"),
)
# where the NUL bytes of ASCII text stand in an encoding without a byte order mark: bytes a character, place of the one that is not NUL
_WIDE: tuple[tuple[int, int, str], ...] = (
    (4, 0, "UTF-32LE"),
    (4, 3, "UTF-32BE"),
    (2, 0, "UTF-16LE"),
    (2, 1, "UTF-16BE"),
)


def clean(text: str) -> str:
    """Return text without lone surrogates: bytes of the command line are read as UTF-8, what is left becomes U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return _SURROGATE.sub("\ufffd", text)


def shown(path: "str | os.PathLike[str]") -> str:
    """Return a path as a sentence can hold it: no lone surrogates, no control characters, one line."""
    return "".join(char if char.isprintable() else "\ufffd" for char in clean(os.fspath(path)))


def not_text(raw: bytes) -> str:
    """Return what data is that is not plain UTF-8 text and what to do about it ("is UTF-16; convert it first: ..."); "" for text."""
    for mark, what, advice in _KINDS:
        if raw.startswith(mark):
            return f"is {what}; {advice}"
    head = raw[:_LOOK]
    for width, place, name in _WIDE:
        units = len(head) // width
        if units >= 2 and _is_wide(head[: units * width], width, place):
            return f"is {name}; {_ICONV.format(name)}"
    return ""


def _is_wide(head: bytes, width: int, place: int) -> bool:
    """Return whether bytes look like text of `width` bytes a character: nearly no NUL at `place`, nearly only NULs beside it."""
    units = len(head) // width
    written = units - head[place::width].count(0)
    beside = [head[other::width].count(0) for other in range(width) if other != place]
    return written >= 0.95 * units and all(zeros >= 0.7 * units for zeros in beside)


def nearest(typed: str, names: "Iterable[str]", cutoff: float = 0.6) -> str | None:
    """Return the name that is nearest to what was typed, whatever its case and signs; None where none is near.

    `cutoff` is the least likeness, 0 to 1, of two names.
    """
    known = {_folded(name): name for name in names}
    begun = _folded(typed)
    near = get_close_matches(begun, known, n=1, cutoff=cutoff)
    if not near and len(begun) >= 3:
        near = [name for name in known if name.startswith(begun)]
    return known[near[0]] if len(near) == 1 else None


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name[:_LONGEST_NAME]).casefold().strip()


def did_you_mean(typed: str, names: "Iterable[str]", otherwise: str, form: str = "{}") -> str:
    """Return "did you mean X?" with the nearest name; else `otherwise`."""
    near = nearest(typed, names)
    return f"did you mean {form.format(near)}?" if near is not None else otherwise


def missing(path: "str | os.PathLike[str]") -> str:
    """Return "there is no file X", with the file of that folder whose name is nearest."""
    folder, name = os.path.split(os.fspath(path))
    try:
        with os.scandir(folder or os.curdir) as entries:
            near = nearest(name, [entry.name for entry in islice(entries, _MOST_FILES)], cutoff=0.7)
    except OSError:
        near = None
    hint = f"; did you mean {shown(os.path.join(folder, near))}?" if near else ""  # noqa: PTH118
    return f"there is no file {shown(path)}{hint}"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("mixcli", _replaced)  # what no encoding can write, for the standard streams
