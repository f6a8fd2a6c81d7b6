"""A format of our own stands for a template only where both write the same text."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template

from mixcli.llama.model import Model
from mixcli.prompts import formats
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.format_check import fingerprint, literals
from mixcli.prompts.jinja import JinjaLayout
from mixcli.prompts.messages import Message
from mixcli.prompts.template_provenance import Provenance
from quantize.source import text
from quantize.vocab.mistral_jinja import BY_VERSION, V1, V3, V7
from quantize.vocab.vocabulary import TokenType
from tests.mixcli.prompts.test_content_tokenizer import with_markers
from tests.support.costly import runs
from tests.support.models import LATER, MISTRAL, VERSIONS, mistral_file

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
QUESTION = [Message("user", "Where is Ulm?")]
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


@pytest.mark.slow
def test_known_templates_are_what_they_are_known_as(
    vocab_model: Callable[..., Model], smol: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = formats.KNOWN
    assert [known[fingerprint(t)] for t in (V1, V3, V7, smol.chat_template or "")] == [
        *("mistral-v1", "mistral-v3", "mistral-v7", "chatml")
    ]
    names = {name: ChatFormat.of(vocab_model(name)).name for name in (*MISTRAL, *LATER)}
    assert (
        names.pop("v2") == "mistral-v2"
    )  # by its comment: version 3 differs in nothing that a template without tools shows
    monkeypatch.setattr(formats, "KNOWN", {})
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


# As the GGUFs of Mistral Small 3.2, Devstral and Ministral 3 have them: a system message of their own, which may think or know the date
SYSTEM = "First think:[THINK]Be slow.[/THINK]Then answer."
SINGLE = (
    "{{ bos_token }}{% if messages[0]['role'] != 'system' %}{{ '[SYSTEM_PROMPT]' + 'Be kind.' + '[/SYSTEM_PROMPT]' }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("name", LATER)
def test_a_mistral_template_may_have_a_system_message_of_its_own(
    vocab_model: Callable[..., Model], name: str
) -> None:
    template = convert_tokenizer_to_chat_template(
        mistral_file(name), SYSTEM, plain_thinking_support=False if name == "v11" else None
    )
    model = vocab_model(name, {"tokenizer.chat_template": text(template)})
    chat = ChatFormat.of(model)
    assert chat.name == f"mistral-{name}"
    found = chat.encode(QUESTION)
    own = JinjaLayout(template, chat.tokenizer, model.vocab)
    assert found == replace(chat, layout=own).encode(QUESTION)
    assert (model.vocab.specials.get("[THINK]") in found) == (name != "v11")
    said = [Message("system", "Be terse."), *QUESTION]
    assert chat.encode(said) == ChatFormat.of(vocab_model(name)).encode(said)


def test_a_date_in_a_system_message_is_of_the_moment(vocab_model: Callable[..., Model]) -> None:
    dated = SINGLE.replace("'Be kind.'", "'Today is ' + strftime_now('%Y-%m-%d')")
    model = vocab_model("v13", {"tokenizer.chat_template": text(dated)})
    before = datetime.now().strftime("%Y-%m-%d")
    chat = ChatFormat.of(model)
    assert chat.name == "mistral-v13"
    shown = b"".join(map(model.vocab.piece, chat.encode(QUESTION))).decode()
    assert any(day in shown for day in (before, datetime.now().strftime("%Y-%m-%d")))


def test_neighbors_that_a_template_leaves_single_are_joined_as_the_reference_does(
    vocab_model: Callable[..., Model],
) -> None:
    chat = ChatFormat.of(vocab_model("v13", {"tokenizer.chat_template": text(SINGLE)}))
    assert chat.name == "mistral-v13"
    system = Message("system", "Be kind.")
    assert chat.encode([Message("user", "Hi"), *QUESTION]) == ChatFormat.of(vocab_model("v13")).encode(
        [system, Message("user", f"Hi\n\n{QUESTION[0].content}")]
    )
    for other in (
        SINGLE.replace("'Be kind.'", "messages[-1]['content']"),
        SINGLE.replace("'Be kind.'", "''"),
    ):
        assert ChatFormat.of(vocab_model("v13", {"tokenizer.chat_template": text(other)})).name == "jinja"


def test_what_a_template_refuses_a_format_of_our_own_may_answer(vocab_model: Callable[..., Model]) -> None:
    chat = ChatFormat.of(vocab_model("v1", {"tokenizer.chat_template": text(ALTERNATE + HF_V1)}))
    assert chat.encode([Message("system", "Be kind."), Message("user", "Hi"), Message("user", "You?")])


@pytest.mark.parametrize("template", ["{{", "{%", "{{ '", '{{ "', "{{ '\\\\"])
def test_code_without_an_end_takes_no_time(template: str) -> None:
    code = f"""
from mixcli.prompts.format_check import literals
print(len(literals({template!r} * 300_000)))
"""
    assert int(runs(code)) <= 1


def test_the_strings_of_a_template_are_found() -> None:
    assert literals("{{ 'a' }} 'no' {% if x == \"b\\\"c\" %}{{ 'd\\n' + 'e' }}") == ["a", 'b\\"c', "d\n", "e"]


def test_a_content_of_all_private_characters_leaves_some_for_the_marks() -> None:
    everything = "".join(map(chr, range(0xF0000, 0xFFFFE)))
    assert Provenance(["Hi", everything], None).variants[0][0] == "\U00100001Hi\U00100001"
