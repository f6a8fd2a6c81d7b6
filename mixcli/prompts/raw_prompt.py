"""Prompts without a conversation: a text or token ids that the model continues as they are, and the gap between two texts."""

from dataclasses import dataclass

from mixcli.errors import BadRequest
from mixcli.llama.model import Vocab
from mixcli.prompts.content_tokenizer import ContentTokenizer

_ANCHOR = "☺"  # before a suffix, so that SentencePiece adds no space to it


@dataclass(frozen=True)
class RawPrompt:
    """A text, or `tokens` in its place, to be continued. With a `suffix` the model fills the gap before that.

    `parse_special` takes the names of control tokens in the text for those tokens. `add_bos` puts the beginning of sequence before a text
    where the vocabulary wants it.
    """

    text: str = ""
    tokens: tuple[int, ...] | None = None
    suffix: str | None = None
    parse_special: bool = False
    add_bos: bool = True

    @property
    def n_characters(self) -> int:
        return len(self.text) + len(self.suffix or "")


@dataclass(frozen=True)
class _Infill:
    """The control tokens around a gap; Mistral's models see the suffix first and have none at the gap (`middle`)."""

    prefix: int
    suffix: int
    middle: int | None


class RawPrompts:
    """Encodes prompts for one vocabulary."""

    def __init__(self, vocab: Vocab, tokenizer: ContentTokenizer) -> None:
        self._vocab, self._tokenizer = vocab, tokenizer
        self._infill = _infill(vocab)

    @property
    def has_infill(self) -> bool:
        """Return whether the vocabulary has the control tokens for a suffix."""
        return self._infill is not None

    def encode(self, prompt: RawPrompt) -> list[int]:
        """Return the token ids of a prompt; raise BadRequest where it is empty, or has a suffix that the model cannot take."""
        # an empty one asks nothing of a model that cannot fill a gap
        suffix = prompt.suffix if prompt.suffix or self._infill else None
        if prompt.tokens is not None:
            ids = list(prompt.tokens)
            if suffix is not None:
                raise BadRequest("suffix needs a prompt that is text, not token ids", param="suffix")
        elif suffix is not None:
            ids = self._around_gap(prompt, suffix)
        else:
            ids = [*self._bos(prompt), *self._text(prompt.text, prompt)]
        return ids

    def _around_gap(self, prompt: RawPrompt, suffix: str) -> list[int]:
        if self._infill is None:
            raise BadRequest(
                "this model has no tokens for a suffix (fill in the middle); remove suffix", param="suffix"
            )
        before, after, bos = self._text(prompt.text, prompt), self._bare(suffix, prompt), self._bos(prompt)
        tokens = self._infill
        if tokens.middle is None:
            return [*bos, tokens.suffix, *after, tokens.prefix, *before]
        return [*bos, tokens.prefix, *before, tokens.suffix, *after, tokens.middle]

    def _bare(self, text: str, prompt: RawPrompt) -> list[int]:
        """Return the tokens of a text that nothing is put before, as SentencePiece would."""
        if not text or not self._vocab.adds_space_prefix:
            return self._text(text, prompt)
        return self._text(_ANCHOR + text, prompt)[len(self._tokenizer.encode(_ANCHOR)) :]

    def _text(self, text: str, prompt: RawPrompt) -> list[int]:
        if not prompt.parse_special:
            return self._tokenizer.encode(text)
        ids: list[int] = []
        for part in self._tokenizer.split_literal(text):
            ids += [part] if isinstance(part, int) else self._tokenizer.encode(part)
        return ids

    def _bos(self, prompt: RawPrompt) -> list[int]:
        return [self._vocab.bos] if prompt.add_bos and self._vocab.adds_bos else []


def _infill(vocab: Vocab) -> _Infill | None:
    """Return the tokens around a gap by the names that they have in Mistral's vocabularies and in others."""
    specials = vocab.specials
    if "[PREFIX]" in specials and "[SUFFIX]" in specials:
        return _Infill(specials["[PREFIX]"], specials["[SUFFIX]"], None)
    for left, right in (("<|", "|>"), ("<", ">")):
        names = [f"{left}fim_{part}{right}" for part in ("prefix", "suffix", "middle")]
        if all(name in specials for name in names):
            prefix, suffix, middle = (specials[name] for name in names)
            return _Infill(prefix, suffix, middle)
    return None
