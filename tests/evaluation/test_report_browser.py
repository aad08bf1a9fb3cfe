"""The report in a real browser: on a phone and on a desk, light and dark, and with hostile texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daj_lightning.evaluation.report import write_report
from daj_lightning.evaluation.results import Evaluation
from example_evaluation import baselines_only, full_evaluation, hostile_evaluation
from screenshot_report import SCHEMES, SIZES, find_browser, launched, screenshots

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

BROWSER = find_browser()
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium, or name one in DAJ_BROWSER"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright: pip install .[dev]"),
]

WRITTEN: dict[str, Callable[[], Evaluation]] = {
    "full": full_evaluation,
    "baselines": baselines_only,
    "hostile": hostile_evaluation,
}
VIEWS = [(size, scheme) for size in SIZES for scheme in SCHEMES]

TOO_FAINT = """() => {
  // Every text against what is painted behind it: WCAG 2's contrast ratio.
  const parse = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    seen += 1;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([ratio, element.outerHTML.slice(0, 90)]);
  }
  return [seen, found];
}"""

CLIPPED = """() => {
  // Texts of figures that leave their drawing, or lie on each other.
  const found = [];
  for (const svg of document.querySelectorAll("figure > svg")) {
    const frame = svg.getBoundingClientRect();
    if (!frame.width) continue;
    const boxes = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([text, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
        found.push([text, "outside"]);
      for (const [other, its] of boxes.slice(i + 1))
        if (box.left < its.right && its.left < box.right && box.top + 2 < its.bottom && its.top + 2 < box.bottom)
          found.push([text, other]);
    });
  }
  return found;
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reports")
    for name, make in WRITTEN.items():
        write_report(make(), root / name)
    return {name: root / name / "report.html" for name in WRITTEN}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert BROWSER is not None
    with launched(BROWSER) as running:
        yield running


class Opened:
    """A report as someone sees it, with all that the browser complained of and asked for."""

    def __init__(self, browser: Browser, report: Path, size: str, scheme: Any) -> None:
        width, height = SIZES[size]
        self.page: Page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.page.wait_for_load_state("networkidle")  # a late request would be one too many

    def _refuse(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_all(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")


@pytest.fixture(params=VIEWS, ids=lambda view: "-".join(view))
def view(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(params=sorted(WRITTEN))
def opened(
    request: pytest.FixtureRequest, browser: Browser, reports: dict[str, Path], view: tuple[str, str]
) -> Iterator[Opened]:
    shown = Opened(browser, reports[request.param], *view)
    yield shown
    shown.page.close()


def test_it_opens_without_complaint_asks_for_nothing_and_is_as_wide_as_the_screen(opened: Opened) -> None:
    opened.open_all()
    assert opened.complaints == []
    assert opened.requests == [opened.page.url]
    width, screen = opened.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert width <= screen
    boxes = {s.get_attribute("id"): s.bounding_box() for s in opened.page.locator("main > section").all()}
    assert len(boxes) >= 4
    assert all(box and box["width"] > 250 and box["height"] > 50 for box in boxes.values()), boxes
    seen, faint = opened.page.evaluate(TOO_FAINT)
    assert seen > 50
    assert faint == []
    assert opened.page.evaluate(CLIPPED) == []


def test_a_word_too_faint_would_be_found(browser: Browser, reports: dict[str, Path]) -> None:
    shown = Opened(browser, reports["baselines"], "desk", "light")
    shown.page.evaluate("document.querySelector('h2').style.color = '#999'")
    _, faint = shown.page.evaluate(TOO_FAINT)
    assert len(faint) == 1
    shown.page.close()


def test_hostile_texts_are_letters_and_nothing_else(browser: Browser, reports: dict[str, Path]) -> None:
    shown = Opened(browser, reports["hostile"], "desk", "dark")
    shown.open_all()
    foreign = shown.page.evaluate("document.querySelectorAll('body script, body style, img, iframe, form').length")
    assert foreign == 0
    assert shown.page.locator("a:not([href^='#'])").count() == 0
    assert "</pre></details><script>alert('x')</script>" in shown.page.locator("#failures pre").first.inner_text()
    assert shown.page.locator("main > section").count() > 10
    assert shown.page.locator("main > section").count() == len(shown.page.locator("nav a").all())
    shown.page.close()


def test_a_script_that_got_in_would_not_run(browser: Browser, reports: dict[str, Path], tmp_path: Path) -> None:
    """The second wall: the page's own content security policy."""
    pierced = tmp_path / "report.html"
    text = reports["baselines"].read_text(encoding="utf-8")
    pierced.write_text(text.replace("</main>", "<script>document.title = 'run'</script></main>"), encoding="utf-8")
    shown = Opened(browser, pierced, "desk", "light")
    assert shown.page.title() == "Candidates without a judge"
    assert any("Content Security Policy" in complaint for complaint in shown.complaints)
    shown.page.close()


def test_dark_is_dark_and_light_is_light(browser: Browser, reports: dict[str, Path]) -> None:
    shades = {}
    for scheme in SCHEMES:
        shown = Opened(browser, reports["baselines"], "phone", scheme)
        colour = shown.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        shades[scheme] = sum(colour)
        shown.page.close()
    assert shades["light"] > 700
    assert shades["dark"] < 100


def test_programs_stand_side_by_side_on_a_desk_and_below_each_other_on_a_phone(
    browser: Browser, reports: dict[str, Path]
) -> None:
    for size in SIZES:
        shown = Opened(browser, reports["full"], size, "light")
        first, second = (program.bounding_box() for program in shown.page.locator(".program").all()[:2])
        assert first is not None
        assert second is not None
        if size == "desk":
            assert first["y"] == second["y"]
            assert first["x"] + first["width"] <= second["x"]
        else:
            assert first["x"] == second["x"]
            assert first["y"] + first["height"] <= second["y"]
        shown.page.close()


def test_a_wide_table_scrolls_within_itself(browser: Browser, reports: dict[str, Path]) -> None:
    shown = Opened(browser, reports["full"], "phone", "light")
    table = shown.page.locator("#paper .scroll").nth(1)
    table.scroll_into_view_if_needed()
    inner, outer = table.evaluate("(e) => [e.scrollWidth, e.clientWidth]")
    assert inner > outer
    label = table.locator("tbody th[scope=row]").first
    before = label.bounding_box()
    table.focus()
    for _ in range(3):
        shown.page.keyboard.press("ArrowRight")
    shown.page.wait_for_function("(e) => e.scrollLeft > 40", arg=table.element_handle())
    after = label.bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] == before["x"], "the rows' names stay in sight"
    shown.page.close()


def test_details_open_by_keyboard(browser: Browser, reports: dict[str, Path]) -> None:
    shown = Opened(browser, reports["full"], "desk", "light")
    details = shown.page.locator("#samples details").first
    assert details.get_attribute("open") is None
    details.locator("summary").first.focus()
    shown.page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    shown.page.close()


def test_screenshots_show_every_section_at_both_sizes_and_in_both_schemes(
    browser: Browser, reports: dict[str, Path], tmp_path: Path
) -> None:
    written = screenshots(reports["baselines"], tmp_path, browser)
    assert len(written) == len(set(written)) == 4 * (1 + 5)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
