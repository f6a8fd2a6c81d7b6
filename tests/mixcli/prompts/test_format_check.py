"""A format of our own stands for a template only where both write the same text."""

from collections.abc import Callable

import pytest

from mixcli.llama.model import Model
from mixcli.prompts import chat_format
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.format_check import fingerprint
from mixcli.prompts.messages import Message
from quantize.source import text
from quantize.vocab.mistral_templates import BY_VERSION, V1, V3, V7
from quantize.vocab.vocabulary import TokenType
from tests.mixcli.prompts.test_content_tokenizer import with_markers
from tests.support.models import LATER, MISTRAL, VERSIONS

LOOP = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
HF_V1 = LOOP + (
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
)
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def test_known_templates_are_what_they_are_known_as(
    vocab_model: Callable[..., Model], smol: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = chat_format.KNOWN
    assert [known[fingerprint(t)] for t in (V1, V3, V7, smol.chat_template or "")] == [
        *("mistral-v1", "mistral-v3", "mistral-v7", "chatml")
    ]
    names = {name: ChatFormat.of(vocab_model(name)).name for name in (*MISTRAL, *LATER)}
    assert (
        names.pop("v2") == "mistral-v2"
    )  # by its comment: version 3 differs in nothing that a template without tools shows
    monkeypatch.setattr(chat_format, "KNOWN", {})
    assert ChatFormat.of(smol).name == "chatml"
    for name, expected in names.items():
        assert (
            ChatFormat.of(vocab_model(name)).name
            == expected
            == known[fingerprint(BY_VERSION[VERSIONS[name]])]
        )


@pytest.mark.parametrize(
    ("name", "template", "expected"),
    [
        ("v1", ALTERNATE + HF_V1, "mistral-v1"),
        ("v1", "{# [INST] #}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "jinja"),
        ("v1", HF_V1.replace("{{ ' ' + m", "{{ m"), "jinja"),
        ("v1", ALTERNATE + HF_V1.replace("m['content'] + eos", "m['content'] | trim + eos"), "jinja"),
        ("v1", ALTERNATE + HF_V1.replace("{{ bos_token }}", ""), "mistral-v1"),  # add_bos_token puts it there
        ("v3", ALTERNATE + HF_V1, "jinja"),  # ' [/INST]' has a space that v3 has not
        ("v3", ALTERNATE + HF_V1.replace(" [/INST]", "[/INST]"), "jinja"),  # no answer loses its last blanks
        ("v3", ALTERNATE + HF_V1.replace(" [/INST]", "[/INST]").replace("m['content'] + eos", "m['content'].rstrip(' ') + eos"), "mistral-v3"),
        ("v3", "{% generation %}" + V3 + "{% endgeneration %}", "mistral-v3"),
        ("v7", V7 + "{% if tools %}[AVAILABLE_TOOLS]{% endif %}", "mistral-v7"),
        ("v7", V7.replace("'[SYSTEM_PROMPT]' + turn", "'[SYSTEM_PROMPT]Today is Monday.' + turn"), "jinja"),
        ("v7", V7 + "{% if add_generation_prompt %}[THINK]{% endif %}", "jinja"),
        ("v7", V7.replace("turn['content'] }}", "turn['content'].split('[THINK]')[0] }}").replace("'[SYSTEM_PROMPT]' + turn['content']", "'[SYSTEM_PROMPT]' + turn['content'].split('##')[0]"), "jinja"),
    ],
)  # fmt: skip
def test_mistral_templates(
    vocab_model: Callable[..., Model], name: str, template: str, expected: str
) -> None:
    assert ChatFormat.of(vocab_model(name, {"tokenizer.chat_template": text(template)})).name == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML + ASK, "chatml"),
        (CHATML, "jinja"),  # it never begins an answer
        ("{# <|im_start|> #}{% for m in messages %}{{ m.content }}{% endfor %}", "jinja"),
        (CHATML.replace("m['role']", "{'assistant': 'model'}.get(m['role'], m['role'])") + ASK, "jinja"),
        (CHATML.replace("m['content']", "m['content'] | trim") + ASK, "jinja"),
        (CHATML.replace("m['content']", "(m['content'].split('</think>')[-1] if m.role == 'assistant' else m['content'])") + ASK, "jinja"),
        (CHATML.replace("m['content']", "(m['content'] | tojson)") + ASK, "jinja"),
        (CHATML.replace("m['content']", "(m['content'] if not m['content'].startswith('zebra!') else '')") + ASK, "jinja"),
        (CHATML.replace("m['content']", "m['content'][:1000]") + ASK, "jinja"),
        ("{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are X.<|im_end|>\n' }}{% endif %}" + CHATML + ASK, "chatml"),
        ("{% if messages[-1]['role'] == 'user' %}{{ '<|im_start|>system\nYou are X.<|im_end|>\n' }}{% endif %}" + CHATML + ASK, "jinja"),
    ],
)  # fmt: skip
def test_chatml_templates(vocab_model: Callable[..., Model], template: str, expected: str) -> None:
    metadata = with_markers("v1", TokenType.CONTROL) | {"tokenizer.chat_template": text(template)}
    assert ChatFormat.of(vocab_model("v1", metadata)).name == expected


def test_what_a_template_refuses_a_format_of_our_own_may_answer(vocab_model: Callable[..., Model]) -> None:
    chat = ChatFormat.of(vocab_model("v1", {"tokenizer.chat_template": text(ALTERNATE + HF_V1)}))
    assert chat.encode([Message("system", "Be kind."), Message("user", "Hi"), Message("user", "You?")])
