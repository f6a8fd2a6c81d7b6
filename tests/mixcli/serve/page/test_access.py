"""Who can use the page: by keyboard, with a screen reader, on a phone, in the dark; and no other page can."""

from typing import Any

import pytest

from tests.mixcli.serve.page.conftest import Site, Visit
from tests.support.scripted_host import ScriptedHost, ended, said

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: run `make browser`"
)
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is not installed: run `make browser`"
)
expect = sync_api.expect
pytestmark = pytest.mark.slow

RICH = """# Heading

Text with **bold**, *italics*, `code` and a [link](https://example.org).

1. one
   - inner

| a | b |
|---|--:|
| 1 | 2 |

```python
print("a line that is much longer than any telephone is wide, so that it has to be scrolled in its own box")
```

> quoted
"""
PHONE = {"width": 390, "height": 844}


def send(page: Any, text: str) -> Any:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    return page.locator(".message.assistant").last


def grave(page: Any) -> list[str]:
    """Return what axe finds serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(
    "visit",
    [{"color_scheme": "light"}, {"color_scheme": "dark", "viewport": PHONE}],
    ids=["light", "dark-phone"],
    indirect=True,
)
def test_axe_finds_no_serious_fault(visit: Visit, site: Site, scripted: ScriptedHost) -> None:
    call = {"index": 0, "id": "abcdefghi", "function": {"name": "weather", "arguments": "{}"}}
    thought = [said(reasoning_content="I think."), said(content=RICH), said(tool_calls=[call])]
    scripted.begin(rich=lambda _: [*thought, *ended("tool_calls")])
    page = visit.open(site.url)
    assert grave(page) == []
    expect(send(page, "rich").locator(".figures")).to_contain_text("tok/s")
    page.locator(".message.user").get_by_role("button", name="Edit").click()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert grave(page) == []
    if page.get_by_role("button", name="Conversations").is_visible():
        page.get_by_role("button", name="Conversations").click()
        assert grave(page) == []
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    assert grave(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    assert grave(page) == []


@pytest.mark.parametrize("visit", [{"viewport": PHONE}], indirect=True)
def test_on_a_phone_nothing_is_wider_than_the_window(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin(rich=lambda _: [said(content=RICH + "\n\n" + "w" * 300), *ended()])
    page = visit.open(site.url)
    expect(send(page, "rich").locator(".figures")).to_contain_text("tok/s")

    def widest() -> list[str]:
        return page.evaluate(
            """[...document.querySelectorAll('body, header *, main, main > *, .message, footer *, dialog[open] *')]
            .filter((one) => one.getClientRects().length && !one.closest('.visually-hidden')
              && (one.getBoundingClientRect().right > 390.5 || one.getBoundingClientRect().left < -0.5))
            .map((one) => one.outerHTML.slice(0, 80))"""
        )

    assert widest() == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('main').scrollWidth <= 390")
    page.get_by_role("button", name="Settings").click()
    assert widest() == []
    page.keyboard.press("Escape")
    expect(page.get_by_label("Search conversations")).not_to_be_visible()
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_label("Search conversations")).not_to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_keys_send_break_lines_compose_and_edit(visit: Visit, site: Site, scripted: ScriptedHost) -> None:
    scripted.begin()
    page = visit.open(site.url)
    box = page.get_by_label("Message", exact=True)
    expect(box).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    # Enter that chooses a word of an input method sends nothing
    box.evaluate(
        "(box) => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, cancelable: true}))"
    )
    expect(box).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .body")).to_have_text("first:Q4 read: onetwo")
    expect(box).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Edit your message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".message.user .body")).to_have_text("one two")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator(".message")).to_have_count(0)
    page.keyboard.press("Shift+Tab")  # from the message box back: the page's parts follow one another
    expect(page.locator("main")).not_to_be_focused()


def test_a_screen_reader_gets_the_finished_text_and_not_each_token(
    visit: Visit, site: Site, scripted: ScriptedHost
) -> None:
    scripted.begin(many=lambda _: [*[said(content=f"word{i} ") for i in range(50)], *ended()])
    page = visit.open(site.url)
    page.evaluate(
        """() => { window.spoken = []; const place = document.getElementById('announcer');
        new MutationObserver(() => spoken.push(place.textContent)).observe(place, {childList: true, characterData: true, subtree: true}); }"""
    )
    expect(send(page, "many").locator(".figures")).to_contain_text("tok/s")
    spoken = page.evaluate("spoken")
    assert [text.split(" ")[0] for text in spoken] == ["Waiting", "word0"]
    assert spoken[1].rstrip().endswith("word49")
    snapshot = page.locator("body").aria_snapshot()
    for landmark in ("navigation", "banner", "main", "contentinfo"):
        assert f"- {landmark}" in snapshot


@pytest.mark.parametrize("text", ["שלום עולם", "مرحبا بالعالم"])
def test_text_from_right_to_left_is_set_so(
    visit: Visit, site: Site, scripted: ScriptedHost, text: str
) -> None:
    scripted.begin(**{text: lambda _: [said(content=f"{text}\n\nin English"), *ended()]})
    page = visit.open(site.url)
    answer = send(page, text)
    expect(answer.locator(".figures")).to_contain_text("tok/s")
    sides = answer.locator("p:not(.state)").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).direction)"
    )
    assert sides == ["rtl", "ltr"]
    assert page.locator(".message.user .body").evaluate("(one) => getComputedStyle(one).direction") == "rtl"
