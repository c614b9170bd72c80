"""The report as one HTML page that needs no network."""

import json
from html import escape
from importlib.resources import files
from typing import Any

from scaling_analysis.report.axes import MOST_MARKS
from scaling_analysis.report.model import Equation, Figure, Part, Report
from scaling_analysis.report.wording import percent

_SYMBOL = {"N": ("N", "opt"), "D": ("D", "opt"), "L": ("L", "opt"), "R": ("R", "opt")}


def render_html(report: Report) -> str:
    """The page: answer, calculator, figures with values on hover, tables; everything escaped."""
    from jinja2 import Environment, StrictUndefined

    folder = files("scaling_analysis.report") / "templates"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Short, since every letter of a drawing refers to its outline.
    prefix = {figure.key: f"f{i}-" for i, figure in enumerate(report.figures)}
    environment.globals |= {
        "drawing": lambda figure: _drawing(figure, prefix[figure.key]),
        "equation": _equation,
        "percent": percent,
        "thinned": MOST_MARKS,
    }
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        style=_markup((folder / "report.css").read_text(encoding="utf-8")),
        script=_markup((folder / "report.js").read_text(encoding="utf-8")),
        data=_embedded({part.key: _page_data(part) for part in report.parts}),
    )


def _page_data(part: Part) -> dict[str, Any]:
    """What the script of the page reads for the calculator of a part."""
    followed = {
        figure.key: {"column": figure.follows, "x": _axis(figure, "x"), "y": _axis(figure, "y")}
        for section in part.sections
        for figure in section.figures
        if figure.follows
    }
    calculator = part.calculator
    return {
        "columns": {name: list(values) for name, values in calculator.columns.items()},
        "start": calculator.start,
        "flops_max": calculator.flops_max,
        "level": percent(calculator.level),
        "figures": followed,
    }


def _axis(figure: Figure, which: str) -> dict[str, Any] | None:
    scale = figure.x if which == "x" else figure.y
    if scale is None:
        return None
    return {"log": scale.log, "limits": list(scale.limits), "pixels": list(scale.pixels)}


def _embedded(data: dict[str, Any]) -> Any:
    """JSON for a script element: no text in it can end the element or open a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _markup(text)


def _drawing(figure: Figure, prefix: str) -> Any:
    """The SVG, made accessible, in the colours of the page, with a hover mark a point.

    `prefix` goes before its ids: drawings share none on one page.

    The drawing holds no text of the log: matplotlib has turned all letters into outlines, and puts
    what it writes besides (comments) through no parser, so comments are taken out.
    """
    head, _, body = figure.svg.partition(">")
    label = escape(f"{figure.title}. {figure.caption}", quote=True)
    body = _without_comments(body)
    for refers in ('id="', 'href="#', "url(#"):
        body = body.replace(refers, refers + prefix)
    for black in ("#000000", "black"):
        body = body.replace(f"fill: {black}", "fill: currentColor")
        body = body.replace(f"stroke: {black}", "stroke: currentColor")
    marks = "".join(
        f'<circle cx="{mark.x:g}" cy="{mark.y:g}" r="6"><title>{escape(mark.text)}</title></circle>'
        for mark in figure.marks
    )
    view = f'viewBox="0 0 {figure.width:g} {figure.height:g}"'
    return _markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{view} fill="currentColor" role="img" aria-label="{label}" id="fig-{escape(figure.key)}">'
        f"{body.replace('</svg>', '')}"
        f'<g class="hover">{marks}</g><g class="follow"></g></svg>'
        if head.startswith("<svg")
        else ""
    )


def _without_comments(svg: str) -> str:
    while (start := svg.find("<!--")) >= 0:
        end = svg.find("-->", start)
        svg = svg[:start] + svg[end + 3 :]
    start, end = svg.find("<metadata>"), svg.find("</metadata>")
    return svg if start < 0 else svg[:start] + svg[end + len("</metadata>") :]


def _equation(law: Equation) -> Any:
    """A law in MathML."""
    v = {name: escape(text) for name, text in law.values.items()}
    base, index = _SYMBOL[law.symbol]
    left = f"<msub><mi>{base}</mi><mi>{index}</mi></msub>"
    if law.kind == "additive":
        terms = (
            f"<mn>{v['E']}</mn><mo>+</mo>"
            f"<mfrac><mn>{v['A']}</mn><msup><mi>N</mi><mn>{v['alpha']}</mn></msup></mfrac><mo>+</mo>"
            f"<mfrac><mn>{v['B']}</mn><msup><mi>D</mi><mn>{v['beta']}</mn></msup></mfrac>"
        )
        left = f"<mi>{base}</mi><mo>(</mo><mi>N</mi><mo>,</mo><mi>D</mi><mo>)</mo>"
    elif law.kind == "link":
        left = f"<mi>{base}</mi>"
        power = f"<mn>{v['scale']}</mn><msup><mi>L</mi><mn>{v['exponent']}</mn></msup>"
        terms = power if v["floor"] == "0" else f"<mn>{v['floor']}</mn><mo>+</mo>{power}"
    else:
        power = (
            f"<mn>{v['scale']}</mn><msup><mrow><mo>(</mo><mi>C</mi><mo>/</mo>"
            f"<mn>{v['reference']}</mn><mo>)</mo></mrow><mn>{v['exponent']}</mn></msup>"
        )
        terms = power
        if law.kind != "power":
            terms = f"{power}<mo>+</mo><mn>{v['floor']}</mn>"
        if law.kind == "inverse":
            terms = f"<msup><mrow><mo>(</mo>{terms}<mo>)</mo></mrow><mn>-1</mn></msup>"
    return _markup(f'<math display="block"><mrow>{left}<mo>=</mo>{terms}</mrow></math>')


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
