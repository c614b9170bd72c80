"""The report: what it says, that texts stay texts, and that the same input gives the same bytes."""

import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.report import html, pdf, wording, writing
from scaling_analysis.report.composing import Study, compose
from scaling_analysis.report.model import Report
from scaling_analysis.report.sources import Curves

from .conftest import ARABIC, SCRIPT, TYPST, simulated


@pytest.fixture(scope="module")
def printed(report) -> bytes:
    return pdf.render_pdf(report)


@pytest.fixture(scope="module")
def page(report) -> str:
    return html.render_html(report)


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def embedded(page: str) -> dict:
    return json.loads(re.search(r'id="forecast-data">(.*?)</script>', page, re.S)[1])


def test_the_answer_comes_first_and_holds_the_numbers_of_the_forecast(report, forecast, page):
    row = forecast.table[forecast.table["method"] == "combined"].iloc[0]
    for text in (wording.count(row["params_opt"]), wording.quantity(row["loss"]), "10¹³ FLOP"):
        assert text in report.parts[0].answer[0]
    assert page.index("A budget of") < page.index("<svg")
    assert [section.key for section in report.parts[0].sections] == [
        "profiles",
        "frontier",
        "laws",
        "link",
        "methods",
        "hindcast",
        "residuals",
        "verification",
        "audit",
        "left-out",
        "reproduce",
    ]


def test_texts_of_the_log_stay_texts_in_the_page(page):
    parsed = Page(page)
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    assert sum(tag == "script" for tag, _ in parsed.elements) == 2
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    for text in (SCRIPT, TYPST, ARABIC):
        assert text in parsed.text


def test_the_page_asks_for_nothing(page):
    for _, attributes in Page(page).elements:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), target
    assert "url(http" not in page


def test_ids_are_unique_and_figures_are_named(page, report):
    elements = Page(page).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = [attrs for tag, attrs in elements if tag == "svg"]
    figures = [figure.key for section in report.parts[0].sections for figure in section.figures]
    assert len(figures) == len(set(figures)) == len(named)
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in named)


def test_the_calculator_reads_what_the_forecast_says(page, forecast):
    columns = embedded(page)[""]["columns"]
    grid = np.array(columns["flops"])
    assert np.all(np.diff(grid) > 0)
    for flops in (2.3e10, 4.4e11, 3e12, 1e13, 7.7e13):
        for name, quantity in (("params_opt", "params_opt"), ("loss", "loss_opt")):
            law = forecast.ensemble.predict(quantity, flops)
            expected = [np.exp(law.log[0]), *(float(end[0]) for end in law.interval(0.9))]
            for end, value in zip(("", "_lo", "_hi"), expected, strict=True):
                column = np.log(np.array(columns[name + end], dtype=float))
                read = np.exp(np.interp(np.log(flops), np.log(grid), column))
                assert read == pytest.approx(value, rel=2e-3)


def test_hover_marks_lie_where_the_points_are_drawn(report):
    figure = next(s for s in report.parts[0].sections if s.key == "laws").figures[0]
    points = pd.read_csv(io.StringIO(figure.csv))
    x, y = figure.x, figure.y
    for scale, values, name in ((x, points["flops"], "x"), (y, points["loss"], "y")):
        share = np.log(values / scale.limits[0]) / np.log(scale.limits[1] / scale.limits[0])
        expected = scale.pixels[0] + share * (scale.pixels[1] - scale.pixels[0])
        assert np.allclose([getattr(mark, name) for mark in figure.marks], expected, atol=0.1)
    assert y.pixels[0] > y.pixels[1]  # up is up


def test_verification_and_exclusions_are_there(report, verification):
    chapter = {section.key: section for section in report.parts[0].sections}
    rows = [row for table in chapter["verification"].tables for row in table.rows]
    assert any("NO" in row for row in rows)
    verdict = verification.decisions["verdict"].iloc[0]
    assert any(verdict in row for row in rows)
    excluded = chapter["left-out"].tables[0].rows[0]
    assert excluded[0] == "excluded"
    assert TYPST.split()[0] in excluded[1]


def test_the_pdf_is_the_same_twice(report, printed):
    assert printed.startswith(b"%PDF")
    assert printed == pdf.render_pdf(report)


def test_texts_of_the_log_stay_texts_in_the_pdf(printed, tmp_path):
    if shutil.which("pdftotext") is None:
        if os.environ.get("SCALING_REQUIRE_BROWSER"):
            pytest.fail("SCALING_REQUIRE_BROWSER is set, but there is no pdftotext")
        pytest.skip("no pdftotext is installed (apt-get install poppler-utils)")
    path = tmp_path / "report.pdf"
    path.write_bytes(printed)
    command = ["pdftotext", "-raw", str(path), "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Long names may be broken anywhere.
    joined = re.sub(r"[\s\u200b-\u200f\u202a-\u202e]", "", text)
    for shown in (SCRIPT, TYPST, ARABIC.split()[0].strip("\u202e")):
        assert re.sub(r"\s", "", shown) in joined


def test_a_report_is_plain_data(report, tmp_path):
    path = report.save(tmp_path / "report.json")
    again = Report.load(path)
    assert again.to_dict() == report.to_dict()
    assert html.render_html(again) == html.render_html(report)
    path.write_text("{}")
    with pytest.raises(sa.ReportError, match="schema_version is None"):
        Report.load(path)


def test_a_study_folder_makes_its_report_the_same_twice(
    hostile_runs, forecast, verification, tmp_path
):
    study = tmp_path / "study"
    study.mkdir()
    sa.write_runs(hostile_runs, study / "runs.csv")
    forecast.save(study / "forecast.json")
    verification.save(study / "verification.json")
    first = sa.write_report(study, tmp_path / "a", formats=("html", "json"))
    second = sa.write_report(study, tmp_path / "b", formats=("html", "json"))
    assert first["html"].name == "report.html"
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
    assert len(first["html"].read_bytes()) < 3e6


@pytest.mark.parametrize(("gone", "kept"), [("mean_return", "loss"), ("loss", "mean_return")])
def test_what_has_no_data_is_left_out_with_a_sentence(tmp_path, gone, kept):
    runs = simulated().drop(columns=[gone])
    made = sa.write_report(
        runs,
        tmp_path,
        formats=("json",),
        methods=["isoflop-vertex"] if kept == "loss" else None,
        flops=[1e13],
        n_resamples=30,
    )
    report = Report.load(made["json"])
    assert any(f"no {gone.replace('_', ' ')}" in text for text in report.parts[0].answer)
    assert "link" not in [section.key for section in report.parts[0].sections]
    assert kept in report.parts[0].calculator.columns
    assert gone not in report.parts[0].calculator.columns
    assert report.parts[0].date == ""


def test_what_cannot_be_reported_is_refused(hostile_runs, forecast, verification, tmp_path):
    with pytest.raises(sa.ReportError, match="choose among html, pdf, json"):
        sa.write_report(hostile_runs, tmp_path, formats=("docx",))
    with pytest.raises(sa.ReportError, match=r"no runs\.csv in this folder"):
        sa.write_report(tmp_path, tmp_path)
    with pytest.raises(sa.ReportError, match="needs the forecast that it judges"):
        sa.write_report(hostile_runs, tmp_path, verification=verification)
    one = hostile_runs[hostile_runs["status"] == "ok"].iloc[[0]]
    with pytest.raises(sa.ScalingError, match="no method could be fitted"):
        sa.write_report(one, tmp_path, n_resamples=20)


@pytest.fixture(scope="module")
def compared(hostile_runs, forecast, tmp_path_factory):
    """The same study under two names, as HTML and as data."""
    folder = tmp_path_factory.mktemp("compared")
    study = folder / "study"
    study.mkdir()
    sa.write_runs(hostile_runs, study / "runs.csv")
    forecast.save(study / "forecast.json")
    made = sa.write_report({"old": study, SCRIPT: study}, folder, formats=("html", "pdf", "json"))
    return made, Report.load(made["json"])


def test_two_studies_stand_side_by_side_and_are_compared(compared, forecast):
    made, report = compared
    assert [section.key for section in report.sections] == ["side-by-side", "compared"]
    assert [part.name for part in report.parts] == ["old", SCRIPT]
    rows = report.sections[0].tables[0].rows
    assert len(rows) == 4  # two forecasts of two budgets
    assert rows[0][1:] == rows[2][1:]
    verdict = report.sections[1].tables[0].rows
    against = sa.compare_recipes(forecast, forecast, [3e12, 1e13, 2e13], level=0.9)
    assert [row[1] for row in verdict] == ["3×10¹²", "10¹³", "2×10¹³"]
    for row, (_, expected) in zip(verdict, against.iterrows(), strict=True):
        assert row[2].startswith(wording.times(expected["multiplier"]))
        assert row[3] == wording.percent(expected["better"])
        assert expected["multiplier_lo"] < 1 < expected["multiplier_hi"]
    assert made["pdf"].read_bytes().startswith(b"%PDF")


def test_parts_share_no_id_and_have_a_calculator_each(compared):
    page = compared[0]["html"].read_text(encoding="utf-8")
    elements = Page(page).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(referred) <= set(ids)
    data = embedded(page)
    assert list(data) == ["1-", "2-"]
    for key, part in data.items():
        for figure in part["figures"]:
            assert figure.startswith(key)
            assert f"fig-{figure}" in ids
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))  # none is skipped


def test_every_task_of_a_log_is_a_part_and_one_that_allows_no_forecast_is_named(tmp_path):
    runs = simulated().drop(columns=["mean_return", "return_se", "episodes", "protocol"])
    one = runs[runs["run_id"] == runs["run_id"].iloc[0]].head(1)
    log = pd.concat(
        [runs.assign(task="maze"), runs.assign(task="chess"), one.assign(task="go")],
        ignore_index=True,
    )
    log["run_id"] = log["task"] + log["run_id"]
    options = {"methods": ["isoflop-vertex"], "flops": [1e13], "n_resamples": 20}
    made = sa.write_report(log, tmp_path, formats=("json",), **options)
    report = Report.load(made["json"])
    assert [part.name for part in report.parts] == ["simulated on maze", "simulated on chess"]
    said = report.sections[0].paragraphs
    assert any(text.startswith("No forecast of simulated on go: ") for text in said)
    # Losses of two tasks have nothing to do with one another.
    assert "compared" not in [section.key for section in report.sections]
    with pytest.raises(sa.ScalingError, match="no method could be fitted"):
        sa.write_report(log, tmp_path, task="go", **options)


def test_several_sources_bring_their_own_forecasts(hostile_runs, forecast, tmp_path):
    with pytest.raises(sa.ReportError, match="forecast= belongs to one source, and 2 are given"):
        sa.write_report([hostile_runs, hostile_runs], tmp_path, forecast=forecast)
    with pytest.raises(sa.ReportError, match="no source"):
        sa.write_report([], tmp_path)


def test_rows_newer_than_the_forecast_are_named(hostile_runs, forecast):
    late = hostile_runs.tail(2).assign(run_id="late")
    runs = pd.concat([hostile_runs, late], ignore_index=True)
    study = Study(
        name="", curves=Curves(forecast), runs=runs, audit=sa.audit(runs), verification=None
    )
    report = compose([study], title="", command="")
    left_out = next(s for s in report.parts[0].sections if s.key == "left-out")
    assert ("ok", "2", "late") in [(row[0], row[2], row[3]) for row in left_out.tables[0].rows]


def test_residuals_are_told_by_method(report, forecast):
    section = next(s for s in report.parts[0].sections if s.key == "residuals")
    table = section.tables[0]
    fit = forecast.ensemble.losses["parametric-additive"].fit
    residual = np.log(fit.rows["loss"] / fit.fitted_values())
    row = next(row for row in table.rows if row[0] == "parametric-additive")
    assert row[1] == str(len(fit.rows))
    assert row[2] == wording.percent(float(np.sqrt(np.mean(residual**2))))
    worst = fit.rows["run_id"].iloc[int(np.argmax(np.abs(residual)))]
    assert wording.clipped(worst, 40) in row[5]


@pytest.mark.slow
def test_a_log_of_a_hundred_thousand_rows(tmp_path):
    runs = simulated(copies=2800).drop(columns=["mean_return", "return_se", "episodes"])
    assert len(runs) > 100_000
    made = sa.write_report(runs, tmp_path, methods=["isoflop-vertex"], n_resamples=20)
    assert made["html"].stat().st_size < 3e6
    assert made["pdf"].stat().st_size < 3e6


def test_defaults_come_from_the_log(hostile_runs):
    assert writing.default_flops(hostile_runs) == [3e13, 3e14]
    assert writing.newest(hostile_runs) == "2026-01-02T03:04:05+00:00"
    assert writing.newest(hostile_runs.drop(columns="time_utc")) == writing.UNDATED


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (wording.compute, 1e19, "10¹⁹"),
        (wording.compute, 1.57e-8, "1.57×10⁻⁸"),
        (wording.count, 57.34e6, "57.3M"),
        (wording.count, 999_960, "1.00M"),
        (wording.count, 4096, "4.10k"),
        (wording.quantity, 0.14501, "0.145"),
        (wording.quantity, 1234.5, "1,230"),
        (wording.quantity, float("nan"), "–"),
        (wording.percent, 0.9, "90\N{NO-BREAK SPACE}%"),
    ],
)
def test_numbers_as_a_reader_sees_them(write, value, text):
    assert write(value) == text
