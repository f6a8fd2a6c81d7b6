"""Templates, questions and forms: what goes to the model, word by word."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixcli.batch.job import prompt_template
from mixcli.errors import MixcliError, UsageError
from mixcli.request.output_format import OutputFormat, form_of
from mixcli.request.prompt import question_of
from mixcli.request.template import Template


def test_values_go_in_where_they_are_named_and_are_not_looked_at_again() -> None:
    template = Template.parse("Into {{ lang }}: {{text}} ({{ lang }})")
    assert template.fill({"lang": "{{ text }}", "text": "hi"}) == "Into {{ text }}: hi ({{ text }})"
    assert template.n_shared == len("Into ")


def test_what_is_no_place_is_text() -> None:
    for text in ("{ text }", "a } b {{", "{% if x %}", "{{", "${text}"):
        assert Template.parse(text).fill({}) == text


@pytest.mark.parametrize(
    "text", ["{{ }}", "{{ text.__class__() }}", "{{ 1 + 1 }}", "{{ a|b }}", "{{ a[x] }}"]
)
def test_a_place_is_a_name_and_nothing_that_runs(text: str) -> None:
    with pytest.raises(UsageError, match="not a valid placeholder"):
        Template.parse(text)


def test_a_missing_value_names_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"\{\{ body \}\} has no value; fields are subject, text"):
        Template.parse("{{ body }}").fill({"text": "", "subject": ""})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("{{ Customer Name }}", "Ann"),
        ("{{Customer Name}}", "Ann"),
        ('{{ "Customer Name" }}', "Ann"),
        ("{{ 'Price ($)' }}", "3.50"),
        ("{{ 2024 total }}", "7"),
        ("{{ meta.user.name }}", "Bob"),
        ('{{ meta["last login"].at }}', "now"),
        ("{{ tags[1] }}", "b"),
        ("{{ tags.0 }}", "a"),
        ("{{ meta.user }}", '{"name": "Bob", "n": null, "ok": true, "l": [1]}'),
        ("{{ meta.user.n }}", ""),
        ("{{ meta.user.ok }}", "true"),
        ("{{ meta.user.l }}", "[1]"),
        ("{{ a.b }}", "dotted"),
    ],
)
def test_names_with_blanks_and_paths_into_fields(place: str, value: str) -> None:
    nested = {
        "meta": {"user": {"name": "Bob", "n": None, "ok": True, "l": [1]}, "last login": {"at": "now"}},
        "tags": ["a", "b"],
    }
    fields = {"Customer Name": "Ann", "Price ($)": "3.50", "2024 total": "7", "a.b": "dotted"}
    values = {**fields, **{name: json.dumps(inside) for name, inside in nested.items()}}
    assert Template.parse(f"<{place}>").fill(values, nested) == f"<{value}>"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{{ customer name }}", "did you mean Customer Name?"),
        ("{{ Custmer_Name }}", "did you mean Customer Name?"),
        ("{{ meta.usr.name }}", "meta has no usr; it has user; did you mean user?"),
        ("{{ meta.user.name.first }}", "meta.user.name is Bob"),
        ("{{ tags[2] }}", "tags is a list of 2"),
        ("{{ tags.first }}", "tags is a list of 2"),
        ("{{ mta.user }}", "has no value"),
        ("{{ x.y }}", "part of another field"),
    ],
)
def test_a_place_that_leads_nowhere_says_where(place: str, words: str) -> None:
    nested = {"meta": {"user": {"name": "Bob"}}, "tags": [1, 2], "x": {"y": 1}}
    values = {"Customer Name": "Ann", "x.y": "2", **dict.fromkeys(nested, "{}")}
    with pytest.raises(UsageError, match=re.escape(words)):
        Template.parse(place).fill(values, nested)


@given(st.lists(st.text(st.characters(exclude_characters="{}")), min_size=1, max_size=5), st.text())
def test_any_text_comes_through_whole(texts: list[str], value: str) -> None:
    filled = Template.parse("{{ it }}".join(texts)).fill({"it": value})
    assert filled == value.join(texts)


def said(prompt: str | None, template: str | None = None, text: str = "", **more: bool) -> str:
    variables = {"lang": "French"} if template and "lang" in template else {}
    question = question_of(prompt, template, None, variables, has_text=bool(text), **more)
    (message,) = question.messages(text)
    return message.content


def test_the_piped_text_comes_first_then_the_template_then_the_prompt() -> None:
    assert said("Why?", text="A fact.") == "A fact.\n\nWhy?"
    assert said("Why {{ x }}?") == "Why {{ x }}?", "a prompt is no template"
    assert said(None, text="A fact.") == "A fact."
    assert said("be brief", "Into {{ lang }}\n", "Hi") == "Hi\n\nInto French\n\nbe brief"
    assert said("be brief", "Into {{ lang }}: {{ stdin }}!\n", "Hi") == "Into French: Hi!\n\nbe brief"
    assert said("be brief", "{{ prompt }}: {{ text }}", "Hi") == "be brief: Hi"


def test_for_many_texts_what_they_share_comes_first() -> None:
    assert said("Classify it.", text="spam", many=True) == "Classify it.\n\nspam"
    assert prompt_template("Classify it.\n").fill({"text": "x"}) == "Classify it.\n\nx"
    assert prompt_template("{{ text }}: good?").fill({"text": "x"}) == "x: good?"
    assert prompt_template(None).fill({"text": "x"}) == "x"


def test_nothing_to_ask_is_said() -> None:
    for prompt in (None, "", "  \n"):
        with pytest.raises(UsageError, match="no prompt and no piped text"):
            said(prompt)


def test_each_form_is_asked_for_by_its_own_name_on_the_wire(tmp_path: Path) -> None:
    schema = tmp_path / "person.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    assert form_of(None, None, None, None, None).body() == {}
    assert form_of("a, b", None, None, None, None).body() == {"structured_outputs": {"choice": ["a", "b"]}}
    assert form_of(None, None, "[0-9]+", None, None).body() == {"structured_outputs": {"regex": "[0-9]+"}}
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "x"')
    for given_as in (str(grammar), 'root ::= "x"'):
        assert form_of(None, None, None, given_as, None).body() == {
            "structured_outputs": {"grammar": 'root ::= "x"'}
        }
    for given_as in (str(schema), schema.read_text()):
        asked = form_of(None, given_as, None, None, None).body()["response_format"]
        assert asked["type"] == "json_schema"
        assert asked["json_schema"]["schema"] == json.loads(schema.read_text())
    short = form_of(None, "name, age int", None, None, None).body()["response_format"]["json_schema"][
        "schema"
    ]
    assert short["properties"]["age"] == {"type": "integer"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("a", None, None, None, None), "needs at least two labels"),
        (("a,,b", None, None, None, None), "label 2 of 3 is empty"),
        (("a,b,a", None, None, None, None), "'a' twice"),
        (("abstain,b", None, None, None, 0.5), "cannot be a label"),
        ((None, "nowhere.json", None, None, None), "no such file: nowhere.json"),
        ((None, "{broken", None, None, None), "JSON"),
    ],
)
def test_a_form_that_cannot_be_is_refused(
    said: tuple[str | None, str | None, str | None, str | None, float | None], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        form_of(*said)


def test_labels_are_read_with_their_probabilities_and_abstained_from() -> None:
    form = OutputFormat(labels=("a", "b"), abstain=0.6)
    assert form.read("a", "stop", {"a": 0.7, "b": 0.3}) == {
        "result": "a",
        "label_probs": {"a": 0.7, "b": 0.3},
    }
    assert form.read("a", "stop", {"a": 0.59, "b": 0.41})["result"] is None
    with pytest.raises(MixcliError, match="no label probabilities"):
        form.read("a", "stop", {})
    with pytest.raises(MixcliError, match="not one of the labels"):
        form.read("I think a", "stop", {})
    assert OutputFormat(labels=("a", "b")).read(" a\n", "stop", {}) == {"result": "a"}, (
        "a server without probabilities"
    )


def test_json_is_read_and_a_cut_one_says_why() -> None:
    form = OutputFormat(schema={"type": "object"})
    assert form.read('{"n": [1, null]}', "stop", {})["result"] == {"n": [1, None]}
    with pytest.raises(MixcliError, match="--max-tokens"):
        form.read('{"n": [1', "length", {})
    with pytest.raises(MixcliError, match="response_format"):
        form.read("Sure! Here it is", "stop", {})


@pytest.mark.parametrize("text", ["About {{ foo", "{{ foo }\nthen", "{{ text }} and {{foo.bar\n"])
def test_a_place_that_is_never_closed_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"\{\{ ?foo.* is never closed"):
        Template.parse(text)


@pytest.mark.parametrize("text", ["int a[] = {{1, 2}, {3}};", "{{", "{{}"])
def test_braces_that_are_no_place_stay(text: str) -> None:
    assert Template.parse(text).texts == (text,)
