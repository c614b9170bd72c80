"""The report: what it says, that texts stay texts, and that the same input gives the same bytes."""

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.report import html, pdf, wording, writing
from scaling_analysis.report.composing import Study, compose
from scaling_analysis.report.model import Report

from .conftest import SCRIPT, TYPST, simulated


@pytest.fixture(scope="module")
def report(hostile_runs, forecast, verification) -> Report:
    study = Study(SCRIPT, forecast, hostile_runs, sa.audit(hostile_runs), verification)
    return compose(
        [study],
        title=f"Scaling of {SCRIPT} on {TYPST}",
        command=f"scaling report '{SCRIPT}'",
    )


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
    assert SCRIPT in parsed.text
    assert TYPST in parsed.text


def test_the_page_asks_for_nothing(page):
    for _, attributes in Page(page).elements:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), target
    assert "url(http" not in page


def test_ids_are_unique_and_figures_are_named(page, report):
    elements = Page(page).elements
    ids = [attrs["id"] for tag, attrs in elements if "id" in attrs and tag not in ("path", "g")]
    named = [attrs for tag, attrs in elements if tag == "svg"]
    assert len(set(ids) - {""}) >= len(report.parts[0].sections)
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


def test_the_pdf_sets_hostile_texts_and_is_the_same_twice(report):
    made = pdf.render_pdf(report)
    assert made.startswith(b"%PDF")
    assert made == pdf.render_pdf(report)


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
