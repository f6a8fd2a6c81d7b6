"""The page with the demo: send, stream, stop, retry, edit, and the branches that come of them."""

from typing import Any

import pytest

from tests.mixcli.serve.page.conftest import Site, Visit
from tests.support.traces import CAPITAL

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: run `make browser`"
)
expect = sync_api.expect
pytestmark = [pytest.mark.model, pytest.mark.slow]


def send(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_a_conversation_is_written_stopped_retried_edited_and_kept(visit: Visit, demo_site: Site) -> None:
    page = visit.open(demo_site.url)
    expect(page.get_by_label("Model", exact=True)).to_have_value("demo:Q4_K_M")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_role("button", name="Save").click()

    send(page, "What is the capital of France?")
    answers = page.locator(".message.assistant")
    expect(answers).to_have_attribute("aria-busy", "false")
    expect(answers.locator(".figures")).to_contain_text("tok/s")
    assert CAPITAL.matches(answers.locator(".body").inner_text())
    expect(page.locator("#announcer")).to_contain_text("Paris")
    expect(page.locator("#context-text")).to_contain_text("of 2,048 tokens")
    expect(page.get_by_role("heading", level=1)).to_have_text("What is the capital of France?")

    # a long answer is stopped by a key, and what has come is kept
    send(page, "Tell me a very long story about the sea.")
    expect(answers.nth(1).locator(".body")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(answers.nth(1)).to_contain_text("Stopped.")
    part = answers.nth(1).locator(".body").inner_text()

    # another answer is a branch beside it
    answers.nth(1).get_by_role("button", name="Retry").click()
    expect(answers.nth(1).locator(".place")).to_have_text("2/2")
    page.get_by_role("button", name="Stop").click()
    expect(answers.nth(1)).to_contain_text("Stopped.")
    answers.nth(1).get_by_role("button", name="Previous branch").click()
    expect(answers.nth(1).locator(".place")).to_have_text("1/2")
    assert answers.nth(1).locator(".body").inner_text() == part

    # an edit of the first message is a branch too
    page.locator(".message.user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Edit your message").fill("What is the capital of Italy?")
    page.keyboard.press("Enter")
    expect(answers).to_have_count(1)
    expect(answers).to_have_attribute("aria-busy", "false")
    expect(page.locator(".message.user .place").first).to_have_text("2/2")

    # all of it is there after a reload
    page.reload()
    expect(page.locator(".message.user .body")).to_have_text("What is the capital of Italy?")
    page.get_by_role("button", name="Previous branch").first.click()
    expect(answers).to_have_count(2)
    assert answers.nth(1).locator(".body").inner_text() == part


def test_a_prompt_beyond_the_context_is_refused_in_the_servers_words(visit: Visit, demo_site: Site) -> None:
    page = visit.open(demo_site.url)
    send(page, "whale " * 3000)
    expect(page.locator(".message.assistant")).to_contain_text("2,048")
    expect(page.locator(".message.assistant")).to_have_class("message assistant failed")
