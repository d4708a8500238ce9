"""Pages in a real browser: they open without an error, filter, fit a telephone, and need neither mouse nor good eyes."""

import time

import pytest
from browser import CHROMIUM, Browser
from click.testing import CliRunner
from report.test_audit_page import AUDIT, shown
from stand_ins import Lucky, recipe

from platemint import run_pipeline
from platemint.pipeline.report import run_page
from platemint.pipeline.run import generate
from platemint.pipeline.write import scores

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
PAGES = ("run", "corpus", "audit")
WIDTHS = (1280, 390)  # CSS pixels: a laptop's window, a telephone
# What the Tab key has to come to: of the plates one, from which arrow keys go on.
EVERY = "a[href], button:not(:disabled):not([tabindex='-1']), select, input, summary, [tabindex='0']"
PER_PAGE = 48

CONTRASTS = """(() => {
  const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => rgb(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor; if (rgb(colour)[3] !== 0) return colour; } return "rgb(255, 255, 255)"; };
  const ratio = (a, b) => { const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x); return (high + 0.05) / (low + 0.05); };
  const found = [];
  for (const e of document.body.querySelectorAll("*:not(script, style, noscript, option)")) {
    const says = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.matches("select, input");
    const before = getComputedStyle(e, "::before");
    if (!e.getClientRects().length) continue;
    if (says) found.push([e.outerHTML.slice(0, 80), ratio(getComputedStyle(e).color, ground(e))]);
    if (!["none", "normal"].includes(before.content)) found.push(["before " + e.outerHTML.slice(0, 80), ratio(before.color, ground(e))]);
  }
  return found;
})()"""
FITS = """(() => {
  const scrolls = e => e.closest(".wide, pre"), seen = [...document.body.querySelectorAll("*")].filter(e => e.getClientRects().length);
  const wide = seen.filter(e => !(e.parentElement && scrolls(e.parentElement)) && e.getBoundingClientRect().right > innerWidth + 0.5);
  const small = seen.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11);
  return [document.documentElement.scrollWidth, innerWidth, wide.map(e => e.outerHTML.slice(0, 80)), small.map(e => e.outerHTML.slice(0, 80))];
})()"""
STOPS = f'[...document.querySelectorAll("{EVERY}")].filter(e => e.getClientRects().length)'
FOCUSED = f"""(() => {{
  const style = getComputedStyle(document.activeElement);
  return [{STOPS}.indexOf(document.activeElement),
          style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1, document.activeElement === document.body];
}})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind, every figure and warning that there can be in it: plates that were dropped, and missing."""
    folder = tmp_path_factory.mktemp("pages")
    made = recipe(folder / "run", filter={"rounds": 2, "min_reader": 0.35})
    generate(made, stages=Lucky(made))
    (folder / "run/lpr.json").write_text(LPR)
    run_page.write_page(folder / "run", stages=Lucky(made))
    result = CliRunner().invoke(
        run_pipeline.main, ["inspect", str(folder / "run"), "--html", str(folder / "corpus.html")]
    )
    assert result.exit_code == 0, result.output
    items = [{"id": f"{k:064x}", "outcome": "redacted", "reason": "source read"} for k in range(3)]
    (folder / "audit.html").write_text(shown(AUDIT | {"given_up": items, "identity": "keyed"}), encoding="utf8")
    return {"run": folder / "run/report.html", "corpus": folder / "corpus.html", "audit": folder / "audit.html"}


LPR = """{"learned": 1, "tested": 2, "left_out": 0, "steps": 3, "seeds": 1, "rare": [], "arms": [
    {"name": "real + edits", "fraction": 1.0, "learned": 100, "plates": {"mean": 0.5, "low": 0.4, "high": 0.6}, "characters": 0.75}]}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", PAGES)
def test_it_fits_the_window_and_says_nothing_to_the_console(browser, pages, kind, width):
    browser.open(pages[kind], width)
    wide, window, sticking_out, small = browser.value(FITS)
    assert wide <= window == width and not sticking_out and not small
    assert not browser.errors


@pytest.mark.parametrize("kind", PAGES)
def test_every_text_stands_out_from_its_ground(browser, pages, kind):
    """WCAG 2.2, 1.4.3 (AA): a contrast of at least 4.5, large texts, marks and buttons that are off included."""
    browser.open(pages[kind])
    contrasts = browser.value(CONTRASTS)
    assert len(contrasts) > 20 and not [(what, round(ratio, 2)) for what, ratio in contrasts if ratio < 4.5]


@pytest.mark.parametrize("kind", PAGES)
def test_the_tab_key_comes_to_everything_in_order_and_shows_where_it_is(browser, pages, kind):
    browser.open(pages[kind])
    wanted, stops = browser.value(f"{STOPS}.length"), []
    for _ in range(wanted + 5):  # a browser stops at parts that scroll, too
        browser.press("Tab")
        number, outlined, ended = browser.value(FOCUSED)
        if ended:
            break
        assert outlined
        stops += [number] if number >= 0 else []
    assert stops[:wanted] == list(range(wanted)) and wanted >= 10


def test_plates_are_filtered_and_paged_by_keys_alone(browser, pages):
    browser.open(pages["run"])
    cards, where = 'document.querySelectorAll("#wall li").length', 'document.getElementById("where").textContent'
    every = int(browser.value(where).split()[-1])
    assert browser.value(cards) == PER_PAGE < every
    to(browser, '"reason"')
    for _ in range(3):  # accepted; accepted, read otherwise; the first reason
        browser.press("ArrowDown")
    dropped = int(browser.value(where).split()[-1])
    assert (
        browser.value('document.querySelectorAll("#wall li.dropped").length')
        == browser.value(cards)
        == min(PER_PAGE, dropped)
    )
    assert 0 < dropped < every
    for _ in range(3):
        browser.press("ArrowUp")
    to(browser, '"next"', "id")
    browser.press("Enter")
    assert browser.value(where).startswith(f"{PER_PAGE + 1} to ") and not browser.errors


def test_a_text_that_is_typed_filters(browser, pages):
    browser.open(pages["run"])
    wanted = browser.value("data.text[0].slice(0, 2)")
    to(browser, '"text"')
    for character in wanted.lower():
        browser.press(character)
    texts = browser.value('[...document.querySelectorAll("#wall .text")].map(e => e.textContent)')
    assert texts and all(wanted in text for text in texts)


def test_orders_are_by_score(browser, pages):
    browser.open(pages["run"])
    assert {*browser.value("scores")} == {*scores(recipe("x"))}
    browser.value('form.elements.order.value = "+reader", choose()')
    values = browser.value("chosen.map(i => data.scores.reader[i])")
    assert values == sorted(values) and len({*values}) > 10
    said = browser.value('[...document.querySelectorAll("#wall li > .soft")].map(e => e.textContent)')
    assert len(said) == PER_PAGE and all(text.startswith("reader ") for text in said)  # no other score
    assert [float(text[7:]) for text in said] == pytest.approx(values[:PER_PAGE], abs=0.0051)


def test_a_reason_shows_its_examples_and_pictures_are_described(browser, pages):
    browser.open(pages["run"])
    dropped = browser.value("""(document.querySelector("[data-reason]").click(),
      [...document.querySelectorAll("#wall li")].map(e => e.className))""")
    assert {*dropped} == {"dropped"} and browser.value(
        "document.images.length && [...document.images].every(i => i.alt)"
    )
    said = browser.value('document.querySelector("#wall li").textContent')
    limits = recipe("x").filter.model_dump()
    reason = next(word for word in scores(recipe("x")) if f"dropped: {word} " in said)
    side, bound = (
        ("at least", limits[f"min_{reason}"]) if f"min_{reason}" in limits else ("at most", limits[f"max_{reason}"])
    )
    assert f"({side} {bound:g})" in said


def test_plates_with_the_lowest_scores_are_a_click_away_and_have_the_focus(browser, pages):
    browser.open(pages["run"])
    browser.value("""document.querySelector('[data-order="+slots"]').click()""")
    values = browser.value("chosen.map(i => data.scores.slots[i])")
    assert values == sorted(values) and browser.value('document.activeElement.className === "layers"')


def test_a_repeated_text_is_looked_for_as_a_whole(browser, pages):
    browser.open(pages["run"])
    whole, part = browser.value("data.text[0]"), browser.value("data.text[0].slice(1)")
    for typed, all_contain in ((f"={whole}", True), (f"={part}", False)):
        found = browser.value(f"(form.elements.text.value = {typed!r}, choose(), chosen.map(i => data.text[i]))")
        assert all(text == whole for text in found) and bool(found) == all_contain


def to(browser, name, by="name"):
    """Presses Tab until something of this name has the focus."""
    for _ in range(60):
        if browser.value(f"document.activeElement.{by} === {name}"):
            return
        browser.press("Tab")
    raise AssertionError(f"no way to {name}")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ("run", "corpus"))
def test_a_plate_is_enlarged_by_keys_alone_and_left_where_it_was(browser, pages, kind, width):
    browser.open(pages[kind], width)
    small = browser.value('document.querySelector("#wall img").getBoundingClientRect().width')
    to(browser, '"layers"', "className")
    browser.press("ArrowRight")
    text = browser.value('document.activeElement.parentElement.querySelector(".text").textContent')
    browser.press("Enter")
    heading = 'document.getElementById("large-text").textContent'
    assert browser.value("large.open") and browser.value(heading) == (text or browser.value("data.lost"))
    wide = browser.value('document.querySelector("#layers img").getBoundingClientRect().width')
    assert wide > 1.5 * small and browser.value("document.documentElement.scrollWidth") <= width
    assert not [ratio for _, ratio in browser.value(CONTRASTS) if ratio < 4.5]
    browser.press("ArrowRight")
    assert browser.value("enlarged") == 2 and browser.value(heading) == browser.value(
        "data.text[chosen[2]] || data.lost"
    )
    browser.press("Escape")
    assert not browser.value("large.open") and not browser.errors
    stops = '[...document.querySelectorAll("#wall .layers")]'
    until(browser, f"{stops}.indexOf(document.activeElement) === 2")
    assert browser.value(f"{stops}.filter(stop => stop.tabIndex === 0).length") == 1


def test_enlarged_plates_go_on_beyond_a_page(browser, pages):
    browser.open(pages["run"])
    browser.value(f"enlarge({PER_PAGE - 1})")
    to(browser, '"after"', "id")
    browser.press("Enter")
    browser.press("Escape")
    until(browser, f'document.getElementById("where").textContent.startsWith("{PER_PAGE + 1} to ")')


def until(browser, condition):
    """Waits for what the browser does in its own time."""
    for _ in range(100):
        if browser.value(condition):
            return
        time.sleep(0.05)
    raise AssertionError(condition)
