"""Text of a model in the page: Markdown is shown, nothing in it is run, and it looks the same however it arrives."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.mixcli.serve.page.conftest import SECONDS, Site
from tests.support.scripted_host import ScriptedHost, ended, said

pytestmark = pytest.mark.slow

SHOW = """async (pieces) => {
  const { MarkdownView } = await import('/page/render.js');
  const place = document.createElement('div');
  const view = new MarkdownView(place);
  let text = '';
  for (const piece of pieces) view.show(text += piece);
  return place.innerHTML;
}"""
LINK = 'rel="noopener noreferrer" target="_blank"'


@pytest.fixture(scope="module")
def page(browser: Any, site: Site) -> Iterator[Any]:
    page = browser.new_page()
    page.set_default_timeout(SECONDS * 1000)
    page.goto(site.url)
    yield page
    page.close()


def shown(page: Any, *pieces: str) -> str:
    """Return the HTML of a text that arrives in pieces, without the attributes that every block has."""
    html: str = page.evaluate(SHOW, list(pieces))
    return html.replace(' dir="auto"', "")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b** *c* _d_ `e*f*` ~~g~~", "<p>a <strong>b</strong> <em>c</em> <em>d</em> <code>e*f*</code> <s>g</s></p>"),
        ("***both*** snake_case_name 2*3*4", "<p><em><strong>both</strong></em> snake_case_name 2<em>3</em>4</p>"),
        ("a * b * c \\*d\\* **", "<p>a * b * c *d* **</p>"),
        ("# One #\n## C#\ntext\n- - -", "<h3>One</h3><h4>C#</h4><p>text</p><hr>"),
        ("a\nb\n\nc", "<p>a<br>b</p><p>c</p>"),
        ("- a\n- b\n  1. c\n  2. d\n\npara", "<ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul><p>para</p>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> a\nb\n> - c", "<blockquote><p>a<br>b</p><ul><li>c</li></ul></blockquote>"),
        ("[a](https://b.c/d_e_f \"t\")", f'<p><a href="https://b.c/d_e_f" {LINK}>a</a></p>'),
        ("see https://b.c/(x)_y.", f'<p>see <a href="https://b.c/(x)_y" {LINK}>https://b.c/(x)_y</a>.</p>'),
        ("![a](https://b.c/d.png)", f'<p><a href="https://b.c/d.png" {LINK}>a</a></p>'),
        ("[a](/etc) [b](data:text/html,x)", "<p><span>a</span> <span>b</span></p>"),
        ("[a](JavaScript:alert(1)) <javascript:x>", "<p><span>a</span> &lt;javascript:x&gt;</p>"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
        ("[a\n", "<p>[a</p>"),
    ],
)  # fmt: skip
def test_markdown_becomes_elements(page: Any, text: str, html: str) -> None:
    assert shown(page, text) == html


def test_code_and_tables_keep_their_texts(page: Any) -> None:
    code = shown(page, "```html\n<script>alert(1)</script>\n\n  # no heading\n```\nafter")
    assert "<code>&lt;script&gt;alert(1)&lt;/script&gt;\n\n  # no heading</code>" in code
    assert "<span>html</span>" in code
    assert code.endswith("<p>after</p>")
    table = shown(page, "| a | b\\|c |\n|:-:|--:|\n| `1` | 2 | 3 |\n\nafter")
    assert '<th class="center">a</th><th class="end">b|c</th>' in table
    assert '<td class="center"><code>1</code></td><td class="end">2</td></tr>' in table


def test_a_text_looks_the_same_in_one_piece_and_letter_by_letter(page: Any) -> None:
    text = (
        "# Title\n\nOne **two *three* four** `five`\n-\n--\n- a\n  - b\n\n    more of b\n- c\n\n1. x\n1. y\n\n"
        "```py\nif a < b:\n\tpass\n```\n> q\n> > r\n\n| a | b |\n|---|---|\n| 1 | 2 |\nend [l](https://a.b/c) <x>\r\n~~~\nopen"
    )
    whole = shown(page, text)
    assert shown(page, *text) == whole
    assert shown(page, *[text[i : i + 7] for i in range(0, len(text), 7)]) == whole


@pytest.mark.parametrize(
    "text",
    [  # of a paragraph that is short enough to be read
        "a*" * 9_000,
        "**a " * 4_900,
        "[" * 19_000,
        "[a](" * 4_900,
        "` `` " * 3_900,
        "<https://a" * 1_900,
        "https://a" + ")" * 19_000,
        "\\" * 19_001,
        # of any length
        "> " * 20_000 + "x",
        "- " * 20_000 + "x",
        "- a\n" * 5_000,
        "|" * 50_000 + "\n" + "|-" * 25_000,
        "#" + " " * 100_000 + "x",
        "```" + " " * 100_000 + "`",
        "a\n" * 50_000,
        "x" * 2_000_000,
    ],
    ids=lambda text: repr(text[:5]),
)  # fmt: skip
def test_hostile_texts_are_shown(page: Any, text: str) -> None:
    """Each takes far less than the minute that a step may take; the square of its length would not."""
    assert shown(page, text).startswith("<")


def test_an_answer_with_scripts_runs_none_of_them(visit: Any, site: Site, scripted: ScriptedHost) -> None:
    hostile = (
        "<script>window.harmed = 1</script><img src=x onerror='harmed = 1'>\n\n[a](javascript:harmed=1) "
        "<iframe srcdoc='<script>parent.harmed = 1</script>'>\n\n```\n</code></pre><script>harmed = 1</script>\n```\n"
    )
    call = {
        "index": 0,
        "id": "abcdefghi",
        "function": {"name": "<b>x</b>", "arguments": "<img src=x onerror='harmed = 1'>"},
    }
    parts = [
        said(reasoning_content=hostile),
        *[said(content=letter) for letter in hostile],
        said(tool_calls=[call]),
    ]
    scripted.begin(**{hostile: lambda _: [*parts, *ended()]})
    page = visit.open(site.url)
    page.get_by_label("Message", exact=True).fill(hostile)
    page.keyboard.press("Enter")
    page.locator(".figures", has_text="tok/s").wait_for()
    assert page.evaluate("window.harmed") is None
    assert page.locator("main").locator("script, img, iframe, b, [onerror], [srcdoc]").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    page.locator(".body .code button").click()
    page.get_by_text("Copied").first.wait_for()
