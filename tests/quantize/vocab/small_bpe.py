"""A byte-level vocabulary of a few tokens, as tokenizer.json has it."""

from typing import Any

from quantize.vocab.pretokenizer import STEPS


def small_bpe(**changes: Any) -> dict[str, Any]:
    """A byte-level tokenizer.json with a dozen tokens."""
    vocab = {"<|endoftext|>": 0, "a": 1, "b": 2, "Ġ": 3, "ab": 4, "Ġa": 5}
    return {
        "added_tokens": [
            {"id": 0, "content": "<|endoftext|>", "special": True},
            {"id": 6, "content": "<|im_start|>", "special": False},
            {"id": 7, "content": "▁word", "special": False},
        ],
        "pre_tokenizer": STEPS["gpt-2"][0],
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "Ġ a"]},
        **changes,
    }
