"""A corpus for tokenizers: thousands of lines in five languages, with emoji, code, numbers, white space and rare scripts.

Put together from word lists by a fixed seed, so that it is the same everywhere.
"""

import random
from functools import cache

WORDS = {
    "en": "the quick fox doesn't jump; it's thinking about naïve rivers, O'Neill's café & 42 Résumés tomorrow",
    "fr": "l'été où naît l'âme française, ça déçoit; Noël à l'École Élémentaire, cœur brûlé, aiguë œuvre « voilà »",
    "de": "die Straße überquert größere Flüsse; Äpfel, Öl und Übermut, Donaudampfschifffahrtsgesellschaft „heißt“ weiß",
    "es": "¿qué pasó, señor? ¡Mañana volverá el niño! pingüino, corazón, Ávila, él según el camión más rápido",
    "it": "perché la città è così bella? l'università dell'Aquila, più caffè, poiché già può; virtù È vero",
}
SNIPPETS = (
    'def f(x: int) -> str:\n    return f"{x!r:>10}"  # note',
    "\t\tif (a && b || !c) { return *p++; } // done",
    "SELECT * FROM t WHERE id IN (1, 2, 3) AND name LIKE '%x%';",
    "<div class=\"a-b\" data-x='1'>&nbsp;text</div>",
    'fn main() { let v: Vec<u8> = vec![0x1F; 16]; println!("{:?}", v); }',
    "https://example.org/a/b.html?q=1&r=%20#frag",
    '#!/bin/sh\nset -eu\nfor i in $(seq 1 10); do echo "$i"; done\r\n',
    '{"key": [1, 2.5e-3, null, true], "nested": {"a": "\\u00e9"}}',
    "E = mc² ≠ ∑ᵢ xᵢ·yᵢ → ∞, 10⁻³ ± 0.5 ‰",
)
SYMBOLS = (
    "😀",
    "🎉🎉",
    "👩‍💻",
    "👨‍👩‍👧‍👦",
    "🇫🇷🇩🇪",
    "❤️",
    "✅",
    "→",
    "…",
    "№",
    "漢字かな",
    "한국어",
    "Привет",
    "αβγ",
    "שלום",
)
RARE = (
    "𝕳𝖊𝖑𝖑𝖔",
    "𓀀𓁐",
    "ꙮ",
    "\u0007",
    "\u00a0",
    "\u2003",
    "\u200b",
    "\ufeff",
    "\U000f0000",
    "ᚠᚢᚦ",
    "𐍈",
    "\x1b[0m",
)
NUMBERS = ("0", "42", "3.14159", "1,234,567.89", "1e-10", "0xDEADBEEF", "2026-11-23", "12:34:56", "٤٢")
MARKERS = ("[INST]", "[/INST]", "</s>", "<s>", "<unk>", "<|im_start|>", "<0x41>", "[TOOL_CALLS]", "▁under")
SPACES = (" ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "\r\n", "        ")


@cache
def lines(n: int = 2600, seed: int = 20231211) -> list[str]:
    """Give `n` different lines; every tenth is a text in one language as it is, the others are mixtures."""
    pick = random.Random(seed)
    made = {"", " ", "\n", "a", *SNIPPETS, *SYMBOLS, *RARE, *NUMBERS, *MARKERS, *SPACES, *WORDS.values()}
    while len(made) < n:
        words = WORDS[pick.choice(list(WORDS))].split()
        parts: list[str] = []
        for _ in range(pick.randint(3, 24)):
            word = pick.choice(words)
            parts.append(pick.choice((word, word, word, word.upper(), word.title())))
            if pick.random() < 0.2:
                parts.append(pick.choice(pick.choice((SYMBOLS, NUMBERS, MARKERS, RARE, SNIPPETS))))
            parts.append(pick.choice(SPACES) if pick.random() < 0.15 else pick.choice((" ", " ", " ", "")))
        made.add("".join(parts) if pick.random() < 0.9 else " ".join(words))
    return sorted(made)
