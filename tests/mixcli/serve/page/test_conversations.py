"""The page with prepared answers: tools, reasoning, progress, two models, what is kept, two tabs, and a server that comes and goes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.mixcli.serve.page.conftest import KEY, OPEN, Site, Visit
from tests.support.ports import served
from tests.support.scripted_host import HOLD, ScriptedHost, ended, progress, said

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: run `make browser`"
)
expect = sync_api.expect
pytestmark = pytest.mark.slow


def send(page: Any, text: str) -> Any:
    """Send a message, and return the last answer's element."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    return page.locator(".message.assistant").last


def setting(page: Any, label: str, value: str) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Save").click()


def test_reasoning_is_folded_and_tool_calls_wait_for_their_results(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    call = {"index": 0, "id": "abcdefghi", "function": {"name": "weather", "arguments": ""}}
    rest = {"index": 0, "function": {"name": "", "arguments": '{"city": "Lyon"}'}}
    calls = [said(tool_calls=[call]), said(tool_calls=[rest]), *ended("tool_calls")]
    scripted.begin(
        **{
            "weather?": lambda _: [said(reasoning_content="I should *look*."), *calls],
            "22 degrees": lambda _: [said(content="It is warm in Lyon."), *ended()],
        }
    )
    page = visit.open(site.url)
    setting(page, "Tools", '[{"type": "function", "function": {"name": "weather"}}]')
    answer = send(page, "weather?")
    expect(answer.locator(".reasoning")).not_to_have_attribute("open", "")
    answer.get_by_text("Reasoning").click()
    expect(answer.locator(".reasoning em")).to_have_text("look")
    expect(answer.locator(".call pre")).to_have_text('{\n  "city": "Lyon"\n}')
    page.get_by_label("Result of weather").fill("22 degrees")
    page.get_by_role("button", name="Send results").click()
    expect(page.locator(".message.assistant").last).to_contain_text("It is warm in Lyon.")
    expect(page.get_by_label("Result of weather")).to_have_count(0)
    assert scripted.requests[0]["tools"][0]["function"]["name"] == "weather"
    _, asked, result = scripted.requests[1]["messages"]
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Lyon"}'}
    assert asked["reasoning_content"] == "I should *look*."
    assert result == {"role": "tool", "tool_call_id": "abcdefghi", "content": "22 degrees"}


def test_a_long_prompt_shows_how_far_it_is_read_and_stopping_cancels_the_request(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin(slow=lambda _: [progress(50), HOLD, said(content="done"), *ended()])
    page = visit.open(site.url)
    answer = send(page, "slow")
    expect(answer.locator(".state")).to_have_text("Processing the prompt: 25 %, about 2 s left")
    expect(answer.locator("progress")).to_have_js_property("value", 0.25)
    page.keyboard.press("Escape")
    expect(answer.locator(".state")).to_have_text("Stopped.")
    assert scripted.left.wait(60)
    assert scripted.requests[0]["return_progress"]
    answer = send(page, "next")
    expect(answer).to_contain_text("read: slownext")  # nothing had been answered: the two messages are one


def test_a_message_waits_while_the_model_loads(visit: Visit, scripted: ScriptedHost) -> None:
    scripted.begin()
    with served(None, OPEN) as port:
        port.model.progress(0.42)
        page = visit.open(f"http://127.0.0.1:{port.number}/", is_ready=False)
        expect(page.locator("#notice")).to_contain_text("The model is loading (40 %).")
        answer = send(page, "early")
        expect(answer.locator(".state")).to_contain_text("The model is loading (40 %)")
        port.model.ready(scripted.socket)
        expect(answer.locator(".body")).to_have_text("any model read: early")
        expect(page.get_by_label("Model", exact=True)).to_have_value("first:Q4")
        expect(page.locator("#notice")).to_be_empty()


def test_the_model_and_the_settings_of_a_conversation_are_sent(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin()
    page = visit.open(site.url)
    expect(send(page, "hello").locator(".body")).to_have_text("first:Q4 read: hello")
    page.get_by_label("Model", exact=True).select_option("second:Q8")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("warm")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Reasoning effort").select_option("high")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Enter a number.")).to_be_visible()
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_role("button", name="Save").click()
    expect(send(page, "again").locator(".body")).to_have_text("second:Q8 read: again")
    first, second = scripted.requests
    assert "temperature" not in first
    assert (second["model"], second["temperature"], second["seed"]) == ("second:Q8", 0.5, 7)
    assert second["reasoning_effort"] == "high"
    assert [one["role"] for one in second["messages"]] == ["system", "user", "assistant", "user"]
    expect(page.locator("#context-text")).to_have_text("250 of 1,000 tokens of the context (25 %)")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("second:Q8")


def test_conversations_are_found_renamed_exported_imported_and_deleted(
    visit: Visit, site: Site, scripted: ScriptedHost, tmp_path: Path
) -> None:
    scripted.begin()
    page = visit.open(site.url)
    expect(send(page, "# About whales").locator(".body")).to_contain_text("whales")
    page.get_by_role("button", name="New chat").click()
    expect(send(page, "About trains").locator(".body")).to_contain_text("trains")
    listed = page.locator("#list button")
    expect(listed).to_have_text(["About trains", "# About whales"])
    page.get_by_label("Search conversations").fill("WHALES read")
    expect(listed).to_have_text(["# About whales"])
    listed.click()

    def menu(entry: str) -> None:
        page.get_by_role("button", name="Conversation menu").click()
        page.get_by_role("button", name=entry).click()

    def exported(entry: str) -> str:
        with page.expect_download() as download:
            menu(entry)
        download.value.save_as(tmp_path / download.value.suggested_filename)
        return download.value.suggested_filename

    menu("Rename")
    page.get_by_label("Title").fill("Whales")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Whales")
    assert exported("Export as Markdown") == "Whales.md"
    text = (tmp_path / "Whales.md").read_text("utf-8")
    assert text == "# Whales\n\n## You\n\n# About whales\n\n## first:Q4\n\nfirst:Q4 read: # About whales\n"
    assert exported("Export as JSON") == "Whales.json"
    menu("Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(listed).to_have_count(0)
    page.get_by_label("Search conversations").fill("")
    expect(listed).to_have_text(["About trains"])
    page.get_by_label("File to import").set_input_files(tmp_path / "Whales.json")
    expect(listed).to_have_text(["Whales", "About trains"])
    expect(page.locator(".message.assistant .body")).to_have_text("first:Q4 read: # About whales")
    tree = json.loads((tmp_path / "Whales.json").read_text("utf-8"))["conversations"][0]
    (tmp_path / "circle.json").write_text(
        json.dumps({"format": "mixcli-conversations", "conversations": [{**tree, "children": ["__proto__"]}]})
    )
    page.get_by_label("File to import").set_input_files(tmp_path / "circle.json")
    expect(page.locator("#notice")).to_contain_text("Nothing was imported.")


@pytest.mark.parametrize(
    ("conversation", "words"),
    [
        ({"children": [""], "messages": {"": {"role": "user", "text": "x"}}}, "do not form a tree"),
        ({"children": ["a"], "messages": {"a": {"role": "user", "children": [""]}, "": {"role": "user"}}}, "do not form a tree"),
        ({"settings": {"temperature": "hot"}}, "invalid setting, temperature"),
        ({"settings": {"tools": "{"}}, "invalid setting, tools"),
        (None, "an entry that is not a conversation"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_and_the_page_goes_on(
    visit: Visit, site: Site, scripted: ScriptedHost, tmp_path: Path, conversation: object, words: str
) -> None:
    """A message with the id of the top was its own parent: the tab hung, also when it was opened again."""
    scripted.begin()
    page = visit.open(site.url)
    file = tmp_path / "hostile.json"
    file.write_text(json.dumps({"format": "mixcli-conversations", "conversations": [conversation]}))
    page.get_by_label("File to import").set_input_files(file)
    expect(page.locator("#notice")).to_contain_text("Nothing was imported. The")
    expect(page.locator("#notice")).to_contain_text(words)
    expect(send(page, "hello").locator(".figures")).to_contain_text("tok/s")


def test_a_full_browser_is_named_and_what_is_shown_is_kept_when_there_is_room_again(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin()
    page = visit.open(site.url)
    quota = page.context.new_cdp_session(page)
    origin = site.url.removesuffix("/")
    quota.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 10_000})
    send(page, "whale " * 20_000)
    expect(page.locator("#notice")).to_contain_text("The browser's storage for conversations is full.")
    expect(page.locator(".message.assistant .figures")).to_contain_text("tok/s")
    quota.send("Storage.overrideQuotaForOrigin", {"origin": origin})
    expect(send(page, "and now?").locator(".figures")).to_contain_text("tok/s")
    expect(page.locator("#notice")).to_be_empty()
    page.reload()
    expect(page.locator(".message")).to_have_count(4)


def test_two_tabs_add_to_one_conversation(visit: Visit, site: Site, scripted: ScriptedHost) -> None:
    scripted.begin(held=lambda _: [said(content="half "), HOLD, said(content="whole"), *ended()])
    one = visit.open(site.url)
    expect(send(one, "hello").locator(".figures")).to_contain_text("tok/s")
    two = visit.open(one.url)
    expect(two.locator(".message")).to_have_count(2)
    answer = send(one, "held")
    expect(two.locator(".message.user")).to_have_count(2)  # what the first tab saves, the second shows
    two.locator(".message.user").first.get_by_role("button", name="Edit").click()
    two.get_by_label("Edit your message").fill("edited here")
    two.keyboard.press("Enter")
    expect(two.locator(".message.assistant .body")).to_have_text("first:Q4 read: edited here")
    scripted.go.set()
    expect(answer.locator(".body")).to_have_text("half whole")
    expect(answer.locator(".figures")).to_contain_text("tok/s")
    expect(one.locator(".message.user .place").first).to_have_text("1/2")
    one.reload()
    place = one.locator(".message.user .place").first
    expect(place).to_have_text(re.compile("[12]/2"))  # the branch of the tab that was saved last
    if place.text_content() == "2/2":
        one.get_by_role("button", name="Previous branch").click()
    expect(place).to_have_text("1/2")
    expect(one.locator(".message.assistant .body").last).to_have_text("half whole")
    one.get_by_role("button", name="Next branch").click()
    expect(one.locator(".message.assistant .body")).to_have_text("first:Q4 read: edited here")
    two.get_by_role("button", name="Conversation menu").click()
    two.get_by_role("button", name="Delete").click()
    two.get_by_role("button", name="Delete", exact=True).click()
    expect(one.locator("#notice")).to_have_text("The conversation was deleted in another tab.")
    expect(one.locator("#list button")).to_have_count(0)


def test_a_server_that_comes_back_is_noticed_and_nothing_typed_is_lost(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin(cut=lambda _: [said(content="The beginning"), HOLD])
    page = visit.open(site.url)
    answer = send(page, "cut")
    expect(answer.locator(".body")).to_have_text("The beginning")
    page.get_by_label("Message", exact=True).press_sequentially("a draft")
    site.stop()
    scripted.go.set()
    try:
        # the gate may have had the time to say so itself
        expect(answer.locator(".state")).to_have_text(
            re.compile("connection ended|crashed during the answer")
        )
        expect(answer.locator(".body")).to_have_text("The beginning")
        expect(page.locator("#notice")).to_contain_text("The server does not respond.")
    finally:
        site.start()
    expect(page.locator("#notice")).to_be_empty()
    scripted.begin()
    answer.get_by_role("button", name="Retry").click()
    expect(page.locator(".message.assistant .body")).to_have_text("first:Q4 read: cut")
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_have_value("a draft")
    expect(page.locator(".message.assistant .place")).to_have_text("2/2")


def test_a_wrong_key_is_refused_and_the_right_one_is_kept_for_the_tab(
    visit: Visit, locked_site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin()
    page = visit.open(locked_site.url, is_ready=False)
    page.get_by_label("Key", exact=True).fill("wrong-horse-battery")
    page.keyboard.press("Enter")
    expect(page.locator("#key-fault")).to_have_text("The server did not accept this key.")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Model", exact=True)).to_have_value("first:Q4")
    expect(send(page, "hello").locator(".body")).to_have_text("first:Q4 read: hello")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("first:Q4")
    assert page.evaluate("[sessionStorage['mixcli.key'], localStorage['mixcli.key']]") == [KEY, None]
    other = visit.open(locked_site.url, is_ready=False)
    other.get_by_label("Key", exact=True).fill(KEY)
    other.get_by_label("Remember it in this browser").check()
    other.get_by_role("button", name="Use this key").click()
    expect(other.get_by_label("Model", exact=True)).to_have_value("first:Q4")
    assert other.evaluate("localStorage['mixcli.key']") == KEY
    other.get_by_role("button", name="Conversation menu").click()
    other.get_by_role("button", name="API key").click()
    other.get_by_role("button", name="Forget the key").click()
    assert other.evaluate("localStorage['mixcli.key']") is None
    answer = send(other, "hello")
    other.get_by_role("button", name="Cancel").click()
    expect(answer.locator(".state")).to_contain_text("This server needs an API key.")
