"""The report as a PDF, set by typst from a fixed source; the report comes in as values."""

import json
from importlib.resources import as_file, files

from scaling_analysis.errors import ReportError
from scaling_analysis.report.model import Report


def render_pdf(report: Report) -> bytes:
    """The PDF; the same report gives the same bytes.

    No text of the report is part of the typst source: the source reads it from `sys.inputs`, where
    it stays text.
    """
    import typst

    data = json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False)
    source = files("scaling_analysis.report") / "templates" / "report.typ"
    with as_file(source) as path:
        compiler = typst.Compiler(
            path, root=path.parent, ignore_system_fonts=True, sys_inputs={"report": data}
        )
        try:
            pdf = compiler.compile(format="pdf", timestamp=0)
        except typst.TypstError as error:
            raise ReportError(f"the PDF could not be set: {error}") from error
    if not isinstance(pdf, bytes):
        raise ReportError("typst gave no PDF")
    return pdf
