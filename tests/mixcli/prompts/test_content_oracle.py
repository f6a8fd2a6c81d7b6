"""Text that people write against mistral_common: equal ids for all tokenizers that it ships."""

import os
from collections.abc import Callable

import pytest

from mixcli.llama.model import Model
from mixcli.prompts.content_tokenizer import ContentTokenizer
from tests.mixcli.prompts.hostile_text import hostile
from tests.mixcli.prompts.test_prompt_oracle import mistral
from tests.support.models import MISTRAL, mistral_file

N_TEXTS = 16_000
STEP = 1 if os.environ.get("MIXCLI_LONG") else 16  # every 16th text, another sixteenth for each tokenizer


@pytest.mark.parametrize("name", MISTRAL)
@pytest.mark.slow
def test_hostile_texts_have_the_ids_of_mistral_common(vocab_model: Callable[..., Model], name: str) -> None:
    reference = mistral(mistral_file(name)).instruct_tokenizer.tokenizer
    tokenizer = ContentTokenizer(vocab_model(name).vocab)
    numbers = range(list(MISTRAL).index(name) % STEP, N_TEXTS, STEP)
    different = [
        n
        for n in numbers
        if tokenizer.encode(hostile(n)) != reference.encode(hostile(n), bos=False, eos=False)
    ]
    assert not different, (len(different), different[:20], hostile(different[0]))
