"""What the README says to type is typed here."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs
from scaling_analysis.report.demonstration import shipped_log
from scaling_analysis.runlog import schema

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.fixture
def log(tmp_path) -> Path:
    """The shipped run log, or before it exists one of the same shape, where the README has it."""
    target = tmp_path / "data" / "nethack_bc" / "runs.csv"
    target.parent.mkdir(parents=True)
    try:
        shutil.copy(shipped_log() / "runs.csv", target)
    except sa.ReportError:
        law = AdditiveSurface(E=0.05, A=60.0, alpha=0.45, B=200.0, beta=0.38)
        budgets = [1e10, 2e10, 4e10, 8e10, 1.6e11, 3e11]
        sa.write_runs(
            simulate_runs(law, np.geomspace(2e3, 4e5, 9), budgets, seeds=2, run_noise=0.01), target
        )
    return target


def test_the_python_example_runs(log, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(log.parents[2])
    exec(compile(code, str(README), "exec"), {})
    said = capsys.readouterr().out
    assert "report/report.html report/report.pdf" in said
    assert (log.parents[2] / "report" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_readme_is_short_and_its_test_command_is_one_line():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    block = re.search(r"<!-- test command -->\n```bash\n(.*?)```\n<!-- end -->", text, re.S)
    assert block is not None
    assert block[1].count("\n") == 1
    assert '-e ".[test]"' in block[1]


def test_links_lead_to_files():
    folders = ("", "docs", "data", "benchmarks", "reports")
    pages = [page for name in folders for page in (ROOT / name).glob("**/*.md" if name else "*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert README in {page for page, _ in links}
    assert [(page, target) for page, target in links if not (page.parent / target).exists()] == []


def test_the_schema_page_explains_every_column():
    text = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    for table in (schema.RUN_COLUMNS, schema.EPISODE_COLUMNS, schema.PLAN_COLUMNS):
        for column in table:
            assert f"| `{column.name}` |" in text, column.name
            assert column.meaning in text
            assert column.detail in text
