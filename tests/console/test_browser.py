"""The console in a real browser: by keyboard, by touch, for ears, without scripts.

Needs Debian's chromium (deploy/ci/install services).
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.console.stock import PASSWORD, Stock

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests here."""
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a console and logs in; at the end nothing may have been complained about.

    The browser reports what its content policy refused, scripts that failed and pages that are not
    there; a request to another host would be one to be refused as well.
    """
    complaints: list[str] = []
    contexts = []

    def opened(stock: Stock, name: str = "ada", **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda one: complaints.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda one: (
                None
                if one.url.startswith((stock.port.url, "data:"))
                else complaints.append(one.url)
            ),
        )
        page.goto(stock.port.url)
        playwright.expect(page.locator("#name")).to_be_focused()
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/suspects")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def press(page: Any, key: str) -> None:
    """Press a key that leads to another page, and wait for that."""
    with page.expect_navigation():
        page.keyboard.press(key)


def shown(page: Any) -> str:
    """The suspect that is on the page."""
    return str(page.locator("[data-suspect]").get_attribute("data-suspect"))


def test_ten_are_reviewed_by_keyboard_and_one_is_undone(fresh: Stock, visit: Open) -> None:
    """From the log-in on no mouse: ten labels, the last taken back and given otherwise."""
    page, given = visit(fresh), {}
    press(page, "r")
    for key in "abubaabbua":
        given[shown(page)] = key
        press(page, key)
    assert len(given) == 10
    press(page, "z")
    undone = shown(page)
    assert undone == list(given)[-1]
    assert "Label taken back." in page.locator("#said").inner_text()
    assert fresh.store.row(undone).reviews == ()
    press(page, "b")
    given[undone] = "b"
    words = {"a": "adversarial", "b": "benign", "u": "unsure"}
    kept = {one: fresh.store.row(one).reviews[0].label for one in given}
    assert kept == {one: words[key] for one, key in given.items()}
    assert fresh.store.counts().by_state["open"] == 12 - sum(key != "u" for key in given.values())


def test_next_and_previous_by_key(stock: Stock, visit: Open) -> None:
    """j and k walk the rows of the queue, Enter opens, j and k walk on from there, q leads back."""
    page = visit(stock)
    for key in "jjk":
        page.keyboard.press(key)
    press(page, "Enter")
    assert shown(page) == stock.ids[-1]
    press(page, "j")
    assert shown(page) == stock.ids[-2]
    press(page, "k")
    assert shown(page) == stock.ids[-1]
    press(page, "q")
    assert page.url.endswith("/suspects?") or page.url.endswith("/suspects")


def test_rows_are_chosen_and_labelled_together(fresh: Stock, visit: Open) -> None:
    """x chooses the row with the focus; a label goes to the chosen ones; z takes them all back."""
    page = visit(fresh)
    for key in "jxjx":
        page.keyboard.press(key)
    assert page.locator("[data-chosen]").inner_text() == "2 chosen are"
    press(page, "b")
    assert "Labelled 2 suspects as benign." in page.locator("#said").inner_text()
    assert fresh.store.counts().by_label["benign"] == 2
    press(page, "z")
    assert fresh.store.counts().by_label.get("benign", 0) == 0


def test_keys_rest_while_one_types_and_can_be_switched_off(fresh: Stock, visit: Open) -> None:
    """A letter in a filter labels nothing; switched off (WCAG 2.1.4) no letter does anything."""
    page = visit(fresh)
    page.keyboard.press("/")
    page.locator("input[name=client]").focus()
    page.keyboard.type("abuzrx")
    assert page.locator("input[name=client]").input_value() == "abuzrx"
    page.locator("h1").click()
    page.keyboard.press("?")
    page.locator("dialog[open] [data-keys-on]").uncheck()
    page.keyboard.press("Escape")
    page.goto(f"{fresh.port.url}/suspects/{fresh.ids[0]}")
    for key in "abuzjkrq":
        page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert shown(page) == fresh.ids[0]
    assert all(fresh.store.row(one).reviews == () for one in fresh.ids)


def test_a_double_key_press_labels_one(fresh: Stock, visit: Open) -> None:
    """A key pressed again before the next page is there does not label what nobody has seen."""
    page = visit(fresh)
    press(page, "r")
    page.keyboard.press("a")
    page.keyboard.press("a")
    page.wait_for_timeout(500)
    assert fresh.store.counts().by_label["adversarial"] == 1


def test_everything_works_without_scripts(fresh: Stock, visit: Open) -> None:
    """Links and forms are enough: open, label, undo."""
    page = visit(fresh, java_script_enabled=False)
    page.locator("a[data-open]").first.click()
    one = page.url.rpartition("/")[2]
    page.locator("#judge button[value=benign]").click()
    page.wait_for_load_state()
    assert fresh.store.row(one).label == "benign"
    page.locator("#judge button.undo").click()
    page.wait_for_load_state()
    assert fresh.store.row(one).label is None


def test_counters_change_while_one_looks(fresh: Stock, visit: Open) -> None:
    """Another reviewer's labels are seen without loading the page again."""
    page, other = visit(fresh), visit(fresh, "ben")
    page.clock.install()
    page.reload()
    assert page.locator("[data-count=open]").inner_text() == "12"
    press(other, "r")
    press(other, "a")
    page.clock.run_for(6000)
    playwright.expect(page.locator("[data-count=open]")).to_have_text("11")
    playwright.expect(page.locator("[data-count=agreed]")).to_have_text("1")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_pages_fit_small_screens(stock: Stock, visit: Open, width: int) -> None:
    """Nothing is wider than the screen; what is touched is 24 pixels high (WCAG 2.5.8)."""
    page = visit(stock, **{**PHONE, "viewport": {"width": width, "height": 800}})
    small = """() => [...document.querySelectorAll("button, a.button, .pick, select, nav a")]
        .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24)
        .map((one) => one.outerHTML)"""
    paths = (
        "/suspects?state=open",
        "/suspects?view=pictures",
        f"/suspects/{stock.ids[0]}",
        "/help",
    )
    for path in paths:
        page.goto(stock.port.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.evaluate(small) == []


WCAG = "{type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']}"
CONTRAST = "{type: 'rule', values: ['color-contrast']}"


@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", WCAG), ("dark", CONTRAST)], ids=["light", "dark"]
)
def test_nothing_that_axe_knows_is_wrong(
    stock: Stock, visit: Open, scheme: str, rules: str
) -> None:
    """axe-core's rules of WCAG 2.2 A and AA on every kind of page; contrast in the dark, too."""
    axe = pytest.importorskip("axe_playwright_python")
    source = (files(axe) / "axe.min.js").read_text()
    page = visit(stock, color_scheme=scheme)
    paths = [f"/suspects/{stock.ids[0]}", "/suspects?state=open"]
    for path in paths if rules == CONTRAST else [*paths, "/help", "/review?model=no"]:
        page.goto(stock.port.url + path)
        page.evaluate(source)
        found = page.evaluate(f"axe.run({{runOnly: {rules}, resultTypes: ['violations']}})")
        assert found["passes"]
        wrong = [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]]
        assert wrong == [], path


def test_pixels_stay_pixels(stock: Stock, visit: Open) -> None:
    """The enlarged picture is crisp: of its 32 x 32 pixels each is one block of one colour."""
    page = visit(stock, viewport={"width": 1440, "height": 900})
    page.goto(f"{stock.port.url}/suspects/{stock.ids[0]}")
    image = page.locator(".big img").first
    assert image.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"
    assert image.evaluate("one => one.getBoundingClientRect().width >= 300")


def test_themes_follow_the_system(stock: Stock, visit: Open) -> None:
    """Dark where the system is dark."""
    colours = {
        scheme: visit(stock, color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(246, 247, 249)", "dark": "rgb(14, 17, 22)"}
