"""`scaling demo`: the whole analysis on the run log that comes with the package."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from scaling_analysis.errors import ReportError
from scaling_analysis.forecasting.forecasting import forecast
from scaling_analysis.report.writing import default_flops, newest, write_report
from scaling_analysis.runlog import load_episodes, load_runs
from scaling_analysis.runlog.audit import audit

LOG = "nethack_bc"
_REACH = (10 / 3, 10.0)
"""Budgets that are forecast, as factors on the largest of the shipped log."""
_REPLICATES = 500


def shipped_log() -> Path:
    """Folder of the run log that comes with the package, installed or in a source checkout."""
    package = Path(str(files("scaling_analysis")))
    places = (package / "_data" / LOG, package.parent / "data" / LOG)
    for place in places:
        if (place / "runs.csv").is_file():
            return place
    raise ReportError(
        f"the run log of the demonstration is in neither {places[0]} nor {places[1]}: install the "
        "package again"
    )


def run_demo(out: Path, say: Callable[[str], object]) -> dict[str, Path]:
    """Audit, fit, forecast and report the shipped log into `out`; `say` tells of each stage.

    Returns the paths of the HTML and the PDF.
    """
    folder = shipped_log()
    runs = load_runs(str(folder / "runs.csv"))
    table = folder / "episodes.parquet"
    episodes = load_episodes(str(table)) if table.is_file() else None
    say(f"{len(runs)} checkpoints of {runs['run_id'].nunique()} runs from {folder / 'runs.csv'}")
    found = audit(runs, episodes)
    say(found.summary().splitlines()[0])
    made = forecast(
        runs,
        default_flops(runs, _REACH),
        n_resamples=_REPLICATES,
        hindcast_resamples=100,
        time_utc=newest(runs),
    )
    say(made.summary())
    out.mkdir(parents=True, exist_ok=True)
    made.save(out / "forecast.json")
    return write_report(runs, out, forecast=made, episodes=episodes, command="scaling demo")
