"""The page in a real browser: headless Chromium, no network.

Where no Chromium is installed these tests are skipped; with SCALING_REQUIRE_BROWSER set, as in
continuous integration, they fail instead.
"""

import os
import re
import shutil
from dataclasses import replace
from math import floor, log10

import numpy as np
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting import forecasting
from scaling_analysis.report import html

from .conftest import SCRIPT, TYPST

REQUIRED = "SCALING_REQUIRE_BROWSER"
BUDGETS = [2.3e10, 4.4e11, 3e12, 1e13, 7.7e13]
"""Within the log, at its end, forecast, and beyond all budgets that were forecast."""
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
PATIENCE = 600_000
"""Milliseconds: a busy machine is slow, and that is no defect of the page."""
SUFFIX = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def absent(why: str):
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, but {why}")
    pytest.skip(f"{why}; set {REQUIRED}=1 to make this an error")


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        absent("no Chromium is installed (apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        absent("playwright is not installed (pip install playwright)")
    with sync_playwright() as driver:
        # As root, as in a container, Chromium does not start inside its sandbox; a container may
        # also have little shared memory and no graphics.
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        made = driver.chromium.launch(executable_path=found, args=flags, timeout=PATIENCE)
        yield made
        made.close()


@pytest.fixture(scope="module")
def file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render_html(report), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file):
    """A page of the report, and lists of what it complained of and asked for; both are checked."""
    context = browser.new_context(viewport=SIZES["desktop"], accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("blob:", "data:"))] == [file.as_uri()]


def number(text: str) -> float:
    """A number as the page writes it: 57.3M, 1.5×10¹⁹, 10⁹, 1,230, or 1.50e19 in a field."""
    if re.fullmatch(r"[\d.]+e\d+", text):
        return float(text)
    digits, power = re.fullmatch(r"([\d.,]*)[kMBT]?×?((?:10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?)", text).groups()
    value = float(digits.replace(",", "") or 1) * SUFFIX.get(text[-1], 1.0)
    return value * 10.0 ** int(power[2:].translate(SUPERSCRIPTS)) if power else value


def assert_three_digits(shown: str, expected: float, slack: float = 5e-4):
    """`shown` is `expected` in three digits; `slack` is the error of reading between nodes."""
    unit = 10.0 ** (floor(log10(expected)) - 2)
    assert abs(number(shown) - expected) <= 0.5 * unit + slack * expected, (shown, expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("107", 107),
        ("57.3M", 57.3e6),
        ("1.5×10¹⁹", 1.5e19),
        ("10⁻⁹", 1e-9),
        ("1,230", 1230),
        ("1.50e19", 1.5e19),
    ],
)
def test_numbers_are_read_as_they_are_written(text, value):
    assert number(text) == pytest.approx(value)


def out(page, name: str) -> str:
    return page.locator(f'[data-out="{name}"] b').inner_text()


def ends(page, name: str, kind: str = "") -> list[str]:
    text = page.locator(f'[data-out="{name}"] [data-kind="{kind}"]').inner_text()
    return text.rsplit(" ", 3)[1::2]


def type_into(page, selector: str, text: str):
    page.fill(selector, text)
    page.press(selector, "Tab")


@pytest.fixture(scope="module")
def elsewhere(forecast) -> sa.Forecast:
    """What `forecast` says of other budgets, from the same fits."""
    e, level, tolerance = forecast.ensemble, forecast.level, forecast.tolerance
    return replace(forecast, table=forecasting._table(e, np.array(BUDGETS), level, tolerance))


def test_the_calculator_says_what_forecast_says(opened, elsewhere):
    table = elsewhere.table[elsewhere.table["method"] == "combined"]
    for _, row in table.iterrows():
        type_into(opened, "#compute", f"{row['flops']:g}")
        for name in ("params_opt", "samples_opt", "loss", "mean_return"):
            assert_three_digits(out(opened, name), row[name])
            for text, end in zip(ends(opened, name), ("lo", "hi"), strict=True):
                assert_three_digits(text, row[f"{name}_{end}"], slack=3e-3)
        for name in ("loss", "mean_return"):
            for text, end in zip(ends(opened, name, "_run"), ("lo", "hi"), strict=True):
                assert_three_digits(text, row[f"{name}_run_{end}"], slack=3e-3)


@pytest.mark.parametrize("name", ["loss", "mean_return"])
def test_the_calculator_inverts_as_flops_for_does(opened, elsewhere, name):
    table = elsewhere.table[elsewhere.table["method"] == "combined"]
    for value in table[name]:
        goal = float(f"{value:.4g}")
        row = elsewhere.flops_for(**{name: goal}).iloc[0]
        type_into(opened, f"#goal-{name}", f"{goal:g}")
        assert opened.locator("[data-role=trouble]").inner_text() == ""
        # An error of the value is one over the exponent times as large in compute.
        assert_three_digits(opened.input_value("#compute"), row["flops"], slack=4e-3)
        assert_three_digits(out(opened, "params_opt"), row["params"], slack=4e-3)
        assert_three_digits(out(opened, "samples_opt"), row["samples"], slack=4e-3)
        said = opened.locator("[data-role=beyond]").inner_text()
        assert "interval of the expected value" in said


def test_what_the_table_does_not_hold_is_refused_in_words(opened):
    trouble = opened.locator("[data-role=trouble]")
    type_into(opened, "#goal-loss", "0.0001")
    assert "does not cross" in trouble.inner_text()
    type_into(opened, "#compute", "much")
    assert "Type a compute" in trouble.inner_text()
    type_into(opened, "#compute", "1e30")
    assert "The table goes from" in trouble.inner_text()


def test_the_slider_moves_numbers_and_marks_with_the_keyboard(opened):
    slider = opened.locator("[data-role=slider]")
    before, mark = out(opened, "params_opt"), ".follow circle"
    places = opened.locator(mark).evaluate_all("all => all.map(c => c.getAttribute('cx'))")
    slider.focus()
    for _ in range(30):
        opened.keyboard.press("ArrowLeft")
    assert number(out(opened, "params_opt")) < number(before)
    moved = opened.locator(mark).evaluate_all("all => all.map(c => c.getAttribute('cx'))")
    assert len(places) >= 4  # N, D, loss and return
    assert all(float(b) < float(a) for a, b in zip(places, moved, strict=True))
    assert "FLOP" in slider.get_attribute("aria-valuetext")


def test_a_figure_tells_its_values_to_pointer_and_keyboard(opened):
    figure = opened.locator("figure").first
    tip = figure.locator(".tip")
    assert tip.is_hidden()
    figure.locator(".hover circle").nth(3).hover(force=True)
    assert "loss" in tip.inner_text()
    assert SCRIPT[:20] in tip.inner_text()
    opened.mouse.move(0, 0)
    figure.locator("svg").focus()
    opened.keyboard.press("ArrowRight")
    first = tip.inner_text()
    opened.keyboard.press("ArrowRight")
    assert first
    assert tip.inner_text() != first
    opened.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_numbers_of_a_figure_can_be_saved(opened, report, tmp_path):
    with opened.expect_download() as download:
        opened.locator("a[data-csv]").first.click()
    figure = report.figures[0]
    assert download.value.suggested_filename == f"{figure.key}.csv"
    download.value.save_as(tmp_path / "numbers.csv")
    assert (tmp_path / "numbers.csv").read_text(encoding="utf-8") == figure.csv


def test_texts_of_the_log_are_shown_as_texts(opened):
    text = opened.locator("body").inner_text()
    for shown in (SCRIPT, TYPST):
        assert shown in text
    assert opened.locator("img").count() == 0
    assert opened.locator("script").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_it_fits_and_can_be_read(browser, file, size, scheme):
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES[size]["width"]
    colours = page.evaluate(
        """() => ["body", ".caption", ".calculator label", "figcaption", "a"].map(s => {
             const at = document.querySelector(s);
             const back = getComputedStyle(document.body).backgroundColor;
             return getComputedStyle(at).color + " " + back;
           })"""
    )
    for pair in colours:
        front, back = (luminance(part) for part in pair.replace(") ", ")|").split("|"))
        assert (back < 0.2) == (scheme == "dark")
        light, dark = max(front, back), min(front, back)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, pair  # WCAG AA
    drawn = page.locator("figure svg").first.bounding_box()
    assert drawn["width"] <= SIZES[size]["width"]
    context.close()


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    channels = np.array([float(c) for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_on_paper_there_is_no_calculator(opened):
    opened.emulate_media(media="print")
    assert opened.locator(".calculator").is_hidden()
    assert opened.locator("nav").first.is_hidden()
    assert opened.locator("figure svg").first.is_visible()
