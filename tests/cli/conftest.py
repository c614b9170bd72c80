"""A run log, a forecast of it, and the command run in this process or in one of its own."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import scaling_analysis as sa
from scaling_analysis import cli
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs

LAW = AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)
QUICK = ("--method", "isoflop-vertex", "--replicates", 30)


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    runs = simulate_runs(
        LAW,
        np.geomspace(2e3, 4e5, 9),
        [1e10, 3e10, 1e11, 3e11, 1e12, 3e12],
        seeds=2,
        sizes_per_budget=6,
        run_noise=0.01,
        checkpoint_noise=0.004,
    )
    return sa.write_runs(runs, tmp_path_factory.mktemp("log") / "runs.csv")


@pytest.fixture(scope="session")
def forecast_file(log, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("forecast") / "forecast.json"
    scaling("forecast", log, "--flops", "1e13", "2e13", "-o", file, *QUICK)
    return file


@pytest.fixture
def program(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The whole program in this process: exit code, what it printed, what it said on stderr."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # set by it; put back later

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scaling", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return run


def invoke(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def scaling(*words) -> str:
    """Output of a command that succeeds."""
    result = invoke(*words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def shell(*words, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    code = "from scaling_analysis.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )
