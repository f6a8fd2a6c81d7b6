"""Convert text at the edges: bytes of shells, files and pipes to text that can be sent, stored and shown.

Python hands over bytes that are not UTF-8 as lone surrogates, and JSON can spell others; neither can be encoded again. `clean` makes text of
them. Paths are not cleaned before they are opened: their bytes are their name. They are cleaned where they are shown.
"""

import codecs
import os
import re
import stat
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SURROGATE = "[\ud800-\udfff]"
SAMPLE = 1 << 16  # bytes that tell what kind of data something is
_HEAD = 1 << 12  # of them, that tell an encoding
MAX_SHOWN = 200  # characters of a path in a sentence
MAX_WORD = 2000  # characters of a word in a message
_LONG_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")
SHARE_BAD = 0.1  # of bytes that are not UTF-8, or control characters: more is not text
_FEW_BAD = 8  # bytes: so few are a slip, whatever their share
_CONTROL = bytes({*range(1, 9), 11, *range(14, 27), *range(28, 32)})
_LONG_ENOUGH = 4  # characters of a part of a name that finds it
_LONGEST_NAME = 200  # characters that are compared: comparing takes their square
_MAX_FILES = 2000  # of a folder, that are looked at for a name
_ICONV = "convert it first: iconv -f {} -t UTF-8"

# C0 and C1 controls except newline and tab, and the overrides that turn the order of what follows, so that a name looks like another
CONTROL = {
    code: None
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
    if chr(code) not in "\n\t"
}

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
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"PK\x03\x04", "a ZIP archive or an Office document", "unpack it, or save it as text or CSV"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as text or CSV"),
    (b"{\\rtf", "a rich text file", "save it as plain text"),
    (b"%PDF-", "a PDF", "convert it to text first: pdftotext FILE -"),
    (b"SQLite format 3\0", "a SQLite database", "export a table as CSV: sqlite3 -csv -header"),
    (b"PAR1", "a Parquet file", "convert it to JSON lines or CSV (batch --ray reads it as it is)"),
    (b"ARROW1", "an Arrow file", "convert it to JSON lines or CSV"),
    (b"FEA1", "a Feather file", "convert it to JSON lines or CSV"),
    (b"Obj\x01", "an Avro file", "convert it to JSON lines or CSV"),
    (b"\x89HDF", "an HDF5 file", "convert it to JSON lines or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write it as text"),
    (b"GGUF", "a GGUF model", "pass a model with -m, and text as input"),
    (b"version https://git-lfs", "a Git LFS pointer in place of a file", "download the file: git lfs pull"),
    (b"\x7fELF", "a program", "pass text"),
    (b"\x89PNG", "an image", "pass text"),
    (b"\xff\xd8\xff", "an image", "pass text"),
    (b"GIF8", "an image", "pass text"),
)
_TAR, _TAR_AT = b"ustar", 257
# where the NUL bytes of ASCII text stand in an encoding without a byte order mark: bytes a character, place of the one that is not NUL
_WIDE: tuple[tuple[int, int, str], ...] = (
    (4, 0, "UTF-32LE"),
    (4, 3, "UTF-32BE"),
    (2, 0, "UTF-16LE"),
    (2, 1, "UTF-16BE"),
)


def clean(text: str) -> str:
    """Return text without lone surrogates: bytes of the command line are read as UTF-8, what is left becomes U+FFFD."""
    if text.isascii() or not re.search(_SURROGATE, text):
        return text
    try:
        return os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return re.sub(_SURROGATE, "\ufffd", text)


def strip_controls(text: str) -> str:
    """Remove C0 and C1 control characters except newline and tab, and overrides of the text's direction.

    Every character stands for itself, so a sequence that is split over several tokens is disarmed as well.
    """
    return text.translate(CONTROL)


def cut_words(text: str) -> str:
    """Return a message with words of more than MAX_WORD characters cut: a shell may have expanded a whole file into one."""
    if len(text) <= MAX_WORD:
        return text
    return _LONG_WORD.sub(lambda word: f"{word[0][: MAX_WORD // 2]}…{word[0][-MAX_WORD // 4 :]}", text)


def n_bad_bytes(text: str) -> int:
    """Count the bytes of a text that were not UTF-8 when Python read them: it keeps each as a lone surrogate."""
    return 0 if text.isascii() else sum("\udc80" <= char <= "\udcff" for char in text)


def shown(path: "str | os.PathLike[str]", limit: int = MAX_SHOWN) -> str:
    """Return a path, or what a file says of itself, as a sentence can hold it.

    No lone surrogates, no control characters, one line, at most `limit` characters and a sign for the middle that is left out.
    """
    text = "".join(char if char.isprintable() else "\ufffd" for char in clean(os.fspath(path)))
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def not_text(raw: bytes, *, of_lines: bool = False) -> str:
    """Return what data is that is not plain UTF-8 text and what to do about it ("is UTF-16; convert it first: ..."); "" for text.

    Only the first SAMPLE bytes are looked at. With `of_lines` a NUL counts as other control characters do: the line that has it is at fault.
    """
    for mark, what, advice in _KINDS:
        if raw.startswith(mark):
            return f"is {what}; {advice}"
    if raw.startswith(_TAR, _TAR_AT):
        return "is a tar archive; unpack it first: tar -x"
    head = raw[:_HEAD]
    for width, place, name in _WIDE:
        units = len(head) // width
        if units >= 2 and _is_wide(head[: units * width], width, place):
            return f"is {name}; {_ICONV.format(name)}"
    sample = raw[:SAMPLE]
    if not of_lines and b"\0" in sample:
        return f"is not text: byte {sample.index(0) + 1:,} is NUL; pass text"
    n_invalid = _n_invalid(sample, is_whole=len(raw) <= SAMPLE)
    n_control = len(sample) - len(sample.translate(None, _CONTROL + b"\0"))
    if n_invalid + n_control <= max(_FEW_BAD, SHARE_BAD * len(sample)):
        return ""
    what, advice = "not UTF-8", "pass text, or convert it: iconv -f latin1 -t UTF-8"
    if n_control >= n_invalid:
        what, advice = "control characters or not UTF-8", "pass text"
    share = (n_invalid + n_control) / len(sample)
    return f"is not text: {100 * share:.0f} % of its first {len(sample):,} bytes are {what}; {advice}"


def _n_invalid(sample: bytes, *, is_whole: bool) -> int:
    """Count bytes that are not UTF-8; a character that the end of the sample cuts is."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample, final=is_whole)
    return text.count("\ufffd") - sample.count("\ufffd".encode())


def _is_wide(head: bytes, width: int, place: int) -> bool:
    """Return whether bytes look like text of `width` bytes a character: nearly no NUL at `place`, nearly only NULs beside it."""
    units = len(head) // width
    written = units - head[place::width].count(0)
    beside = [head[other::width].count(0) for other in range(width) if other != place]
    return written >= 0.95 * units and all(zeros >= 0.7 * units for zeros in beside)


def first_repeated(names: "Iterable[str]") -> str | None:
    """Return the first of some names that is there twice; None where each is there once."""
    return next((name for name, n in Counter(names).items() if n > 1), None)


def nearest(typed: str, names: "Iterable[str]", cutoff: float = 0.6) -> str | None:
    """Return the name that is nearest to what was typed, whatever its case and signs; None where none is near.

    The shortest name that contains what was typed is nearer than one that is spelled like it. `cutoff` is the least likeness, 0 to 1, of
    two names.
    """
    known = {_folded(name): name for name in names}
    begun = _folded(typed)
    whole = begun.replace(" ", "")
    if len(whole) >= _LONG_ENOUGH and (longer := [name for name in known if whole in name.replace(" ", "")]):
        return known[min(longer, key=len)]
    from difflib import get_close_matches

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
    """Return "no such file: X", with the file of that folder whose name is nearest."""
    folder, name = os.path.split(os.fspath(path))
    try:
        with os.scandir(folder or os.curdir) as entries:
            near = nearest(name, [entry.name for entry in islice(entries, _MAX_FILES)], cutoff=0.7)
    except OSError:
        near = None
    hint = f"; did you mean {shown(os.path.join(folder, near))}?" if near else ""  # noqa: PTH118
    return f"no such file: {shown(path)}{hint}"


def not_a_file(path: "str | os.PathLike[str]", wanted: str = "a regular file") -> str:
    """Return the sentence on a path of no regular file: "X is a folder; use a regular file", or that nothing is there."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return missing(path)
    return f"{shown(path)} is {'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'}; use {wanted}"


def as_argument(path: "str | os.PathLike[str]") -> str:
    """Return a path as a shell takes it for a command that also takes names: a bare file name gets `./` in front."""
    import shlex

    text = os.fspath(path)
    return shlex.quote(text if os.sep in text else f"./{text}")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("mixcli", _replaced)  # what no encoding can write, for the standard streams
