"""Name every avoided phrase in messages, docs, docstrings and comments; `make lint` runs it.

    python -m tests.avoided_phrases

Terms and plain sentences read quickly; these phrases read as translated, as riddles, or make a person of a program.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.messages import PACKAGES, ROOT, texts_of

# phrase -> what to write instead
EVERYWHERE = {
    r"whoever|whomever": "name the person or program",
    r"nobody|somebody|anybody|everybody": "name the person or program, or use the passive",
    r"anew": "again",
    r"go(es|ing)? on (with|where|until|after|once|all|as)|went on": "resume, continue",
    r"by (itself|themselves)": "automatically, separately, alone",
    r"(?<!there )(is|are|was|were) no (?!longer|more|limit|need)\w+": "is not a ..., has no ...",
    r"(?<!there )(is|are|was|were) (?-i:none)": "does not exist, is not one",
    r"shall": "must, will",
    r"that (is|are) here|what is here": "existing, downloaded, installed",
    r"what it is": "name it",
    r"say which": "name one",
    r"(is|are) told|who asks|askers?|hears? of": "receives, the client",
    r"cannot be meant": "invalid",
    r"call(s|ed)? off": "cancel",
    r"for ever": "without limit, permanently",
    r"h(a|u)ngs? up": "close the connection",
    r"half a character|halves of characters": "a lone surrogate",
    r"in vain|for its sake": "say what has no effect",
    r"writes/s|reads/s": "tok/s",
}
# of a message only: docstrings may speak of a second
IN_MESSAGES = {
    r"tokens? a second|tokens/s": "tok/s",
    r"main memory": "host memory",
    r"licences?|colour\w*|neighbour\w*|favourite\w*|behaviour\w*|honour\w*|catalogue": "American spelling",
    r"(summar|normal|organ|recogn|optim|initial|util)is(e|ed|es|ing|ation)": "American spelling",
    r"make room": "free some space",
    r"leave (it|one|them|\S+) out": "remove",
    r"say --\S+": "pass",
    r"fits? into": "fit in",
    r"goes? away|went away": "ended, closed the connection",
    r"(run|try) (it|this|that|the (same )?command) again|the same command": "rerun the command",
}
# of a text in the code only: docs may say them of people and of pages
IN_CODE = {
    r"brings?|brought": "downloads; run `mixcli pull`",
    r"(do not|don't) trust (it|this)": "name the next step: check HF_ENDPOINT, choose another repository",
    r"process ended|it ended": "crashed, was stopped",
    r"claims|gives|lets|gave": "declares, has: a file does nothing",
    r"also commercially": "including commercial",
    r"(file|quantization) types?": "quant",
    r"(an|the|no) imatrix": "importance matrix; imatrix is a command, an option and a file's suffix",
    r"(or|and) name (a|an|one|it|another)|name (a|an|another) (regular )?(file|model|folder)": "pass, choose, use",
    r"(be|send|pass|needs) a text(?! file)|(list|object) of texts": "text, a string",
    r"the server's answer|its answer (stalled|was)": "response",
    r"(command|tool|setting|run|file) is called": "... not found",
    r"has (more than )?x (bytes|characters)": "is ... long, is larger than",
    r"a card|no card|each card|cards are": "GPU",
    r"text that ships": "built-in text",
    r"(records|conversation|run) (is|are) kept": "saved",
    r"get short enough": "too long",
    r"splits a width": "is not a multiple of",
    r"(an)?other \w+ than": "a different ... from",
    r"made wrongly": "damaged, written incorrectly",
    r"\w+, (try|wait for|see the|close other)": "a comma splice: use a semicolon",
}
BEGINNINGS = re.compile(r"(Give|Say|Tell|Gives|Says|Tells|Be)\b")  # of a docstring: Return, Print, Raise
BEGINNING = re.compile(rf'"""{BEGINNINGS.pattern}')
INTERNAL = ("bench",)  # only its docstrings and comments are read: its texts are for engineers
UNREAD = {"benchmarks.md"}  # its table heads belong to bench.report


def _find(text: str, phrases: dict[str, str]) -> Iterator[str]:
    if not _any_of(tuple(phrases)).search(text):
        return
    for phrase, instead in phrases.items():
        for match in re.finditer(rf"\b(?:{phrase})\b", text, re.IGNORECASE):
            yield f"{match[0]!r}: {instead}"


@cache
def _any_of(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for all phrases: almost no text has any, and one look is quicker than thirty."""
    return re.compile(rf"\b(?:{'|'.join(phrases)})\b", re.IGNORECASE)


def in_message(text: str) -> Iterator[str]:
    """Yield what to change in a message."""
    filled = re.sub(r"\{[^{}]*\}", "x", text)
    yield from _find(filled, EVERYWHERE | IN_MESSAGES | IN_CODE)


def in_docstring(text: str) -> Iterator[str]:
    """Yield what to change in a docstring."""
    if match := BEGINNINGS.match(text):
        yield f"begins with {match[0]!r}: begin with Return, Print, Raise ..."
    yield from _find(re.sub(r"`[^`]*`", "x", text), EVERYWHERE)


def in_source(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and finding of every docstring and comment of a file."""
    if not (_any_of(tuple(EVERYWHERE)).search(re.sub(r"`[^`\n]*`", "x", source)) or BEGINNING.search(source)):
        return  # without parsing
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            for finding in in_docstring(text) if text else ():
                yield node.body[0].lineno, finding
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from ((token.start[0], finding) for finding in _find(token.string, EVERYWHERE))


def findings(root: Path) -> Iterator[str]:
    """Yield a line for every avoided phrase under `root`."""
    for folder in (*PACKAGES, *INTERNAL):
        for path in sorted((root / folder).rglob("*.*")):
            name = path.relative_to(root)
            if path.suffix == ".py":
                yield from (f"{name}:{line}: {one}" for line, one in in_source(path.read_text("utf-8")))
            if path.suffix in (".py", ".toml") and folder not in INTERNAL:
                for scope, text in texts_of(path):
                    yield from (f"{name}: {scope}: {one}" for one in in_message(text))
    for page in (root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))):
        if page.name not in UNREAD:
            for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
                yield from (f"{page.name}:{number}: {one}" for one in _find(line, EVERYWHERE | IN_MESSAGES))


if __name__ == "__main__":
    found = list(findings(ROOT))
    sys.stdout.writelines(f"{one}\n" for one in found)
    sys.exit(bool(found))
