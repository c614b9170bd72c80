"""A ladder like the shipped one, from a known law, and one forecast of it for many tests."""

import numpy as np
import pytest

from scaling_analysis.forecasting.forecasting import forecast
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs

LAW = AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0, beta=0.38)
BUDGETS = [1e10, 3e10, 1e11, 3e11, 1e12, 3e12]
SIZES = np.geomspace(2e3, 4e5, 9)
TIME = "2026-01-01T00:00:00+00:00"


def expected_return(loss):
    """Points at a loss: the link of the simulated ladder."""
    return 400 * np.asarray(loss) ** -1.7


def simulate_ladder(rng=0, *, budgets=BUDGETS, link=expected_return, **options):
    noise = {"run_noise": 0.01, "checkpoint_noise": 0.005, "return_noise": 0.05, "episodes": 200}
    return simulate_runs(
        LAW, SIZES, budgets, link=link, rng=rng,
        **{"seeds": 3, "sizes_per_budget": 6} | noise | options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def law():
    return LAW


@pytest.fixture(scope="session")
def simulate():
    return simulate_ladder


@pytest.fixture(scope="session")
def link():
    return expected_return


@pytest.fixture(scope="session")
def ladder():
    return simulate_ladder()


@pytest.fixture(scope="session")
def make_forecast():
    def make(runs, flops=(1e13, 2e13), **options):
        quick = {"n_resamples": 200, "hindcast_resamples": 40, "time_utc": TIME}
        return forecast(runs, list(flops), **quick | options)

    return make


@pytest.fixture(scope="session")
def made(ladder, make_forecast):
    return make_forecast(ladder)
