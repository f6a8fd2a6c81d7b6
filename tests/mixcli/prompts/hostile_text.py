"""Texts that tokenizers disagree about: drawn from a seed, so that a number names each of them."""

import random
import unicodedata
from collections.abc import Callable

WORDS = (
    "the", "Hello", "don't", "WE'LL", "l'œuvre", "déjà", "Straße", "GROSS", "iPhone", "camelCase", "XMLHttpRequest", "snake_case",
    "नमस्ते", "हिन्दी", "क्षत्रिय", "ภาษาไทย", "น้ำ", "தமிழ்", "Tiếng", "Việt", "nguyễn", "العربية", "مَرْحَبًا", "עִבְרִית", "漢字", "かな",
    "カタカナ", "한국어", "각", "Ελληνικά", "ǅungla", "ʰʷ", "ªº", "ﬁﬂ", "Ⅷ", "½", "٣٤٥", "१२३", "𝔘𝔫𝔦", "🏳️‍🌈", "👩‍👩‍👧‍👦", "👍🏽", "🇫🇷",
    "e\u0301", "\u0301", "a\u0308\u0304", "\u200d", "\ufe0f", "\u20dd", "\U0001e944", "12345", "3.14", "1e-9", "0x1F", "50%", "€",
)  # fmt: skip
BLANKS = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff\u2581"
ODD = "\0\x01\x07\x1b\x7f\x80\x9f\xad\ufffd\ufffe\uffff\ue000\uf8ff\U000f0000\U0010ffff\u0378\u0530\U0001e030\U0001fae8\u1c89\ua7cb\u31e4\U0001ccf0\u061c\u202e\u2066\u2069"
MARKERS = (
    "<s>", "</s>", "<unk>", "<pad>", "[INST]", "[/INST]", " [INST] ", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]", "[IMG]", "[PREFIX]", "[SUFFIX]", "[REF]", "[/REF]", "[REFERENCE_DOC_0]", "[REFERENCE_DOC_19]", "[REFERENCE_DOC_20]",
    "[REFERENCE_DOC_", "[control_8]", "[control_300]", "<SPECIAL_20>", "<SPECIAL_999>", "<0x0A>", "<0x00>", "<0xE2><0x82><0xAC>", "<0xff>",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<｜User｜>", "[THINK]", "</think>", "<s", "/s>", "[[INST]]", "<</s>>", "▁[INST]",
)  # fmt: skip
CODE = (
    "def f(x):\n    return {'a': [1, 2]}  # ok\n", "\tif (a && b) || c:\n\t\tpass;", "<!-- x -->\r\n<p>&nbsp;</p>", "SELECT * FROM t;--",
    "https://a.b/c?d=e&f=%20#g", "///////\n\n", "/* x */\r\n\r\n", "=> != === <<= ...", "'s 'T 'RE 'll 'd", "C:\\dir\\file.txt",
)  # fmt: skip
RUNS = (1, 2, 3, 16, 100, 1000)


def _character(rng: random.Random) -> str:
    return chr(
        rng.choice(
            (rng.randrange(0x300), rng.randrange(0x3000), rng.randrange(0x20000), rng.randrange(0x110000))
        )
    )


def _any(rng: random.Random) -> str:
    found = "".join(_character(rng) for _ in range(rng.randint(1, 8)))
    return "".join("x" if 0xD800 <= ord(c) <= 0xDFFF else c for c in found)


def _near(rng: random.Random) -> str:
    """Neighbors of one block, as a script has them."""
    start = rng.randrange(0x20, 0x1F000)
    found = (chr(start + rng.randrange(64)) for _ in range(rng.randint(2, 20)))
    return "".join(c for c in found if not 0xD800 <= ord(c) <= 0xDFFF)


def _run(rng: random.Random) -> str:
    return rng.choice(
        [*BLANKS, *ODD, *"aAzß^=-_/.1<[é漢\u0301", "ab", "aA", " \n", "\n ", "\r\n"]
    ) * rng.choice(RUNS)


def _normalized(rng: random.Random) -> str:
    return unicodedata.normalize(rng.choice(("NFC", "NFD", "NFKC", "NFKD")), rng.choice(WORDS))


_MAKERS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: rng.choice(WORDS),
    lambda rng: rng.choice(WORDS),
    lambda rng: " " + rng.choice(WORDS),
    _normalized,
    lambda rng: rng.choice(BLANKS),
    lambda rng: "".join(rng.choices(BLANKS, k=rng.randint(1, 6))),
    lambda rng: rng.choice(ODD),
    lambda rng: rng.choice(MARKERS),
    lambda rng: rng.choice(CODE),
    _run,
    _any,
    _near,
    lambda rng: rng.choice(WORDS).upper(),
    lambda rng: "".join(rng.choice(WORDS)[:2] for _ in range(3)),
)  # fmt: skip


def hostile(number: int) -> str:
    """Return text `number`: one to twelve pieces of every kind, joined with and without blanks."""
    rng = random.Random(f"hostile {number}")
    pieces = [rng.choice(_MAKERS)(rng) for _ in range(rng.randint(1, 12))]
    return rng.choice(("", "", " ", "\n")).join(pieces)
