"""What the audit finds in published logs, against figures of independent analyses."""

import math

import numpy as np
import pandas as pd
import pytest
from audited_logs import found

from scaling_analysis.runlog import load_episodes, load_runs
from scaling_analysis.runlog.audit import audit


@pytest.fixture(scope="module")
def nethack(reference_data):
    folder = reference_data / "nethack_il"
    return folder / "runs.csv", load_episodes(folder / "episodes.parquet")


def test_every_fragility_of_the_nethack_log(nethack):
    """The published range, 1e15 to 5e18 FLOP; figures of an independent analysis of the log."""
    path, episodes = nethack
    runs = load_runs(path, where="budget >= 1e15")
    report = {}
    for finding in audit(runs, episodes).findings:
        report.setdefault(finding.code, finding)  # of loss and return the loss comes first
    assert report["few-distinct-optima"].figures == {"distinct": 6, "budgets": 14}
    assert report["no-interior-minimum"].figures["edges"] == 5
    assert report["no-interior-minimum"].figures["budgets"] == 14
    leverage = report["size-leverage"].figures
    assert leverage["size"] == 188_793
    assert leverage["exponent"] == pytest.approx(0.6109, abs=5e-5)
    assert leverage["without"] == pytest.approx(0.531, abs=5e-4)
    reading = report["optimum-definition"].figures
    assert reading["local_parabola"] == pytest.approx(0.589, abs=5e-4)
    assert reading["whole_parabola"] == pytest.approx(0.638, abs=1e-3)
    assert "whole parabola 0.638 (11 of 14 budgets)" in report["optimum-definition"].what
    noise = report["noisy-optimum"].figures
    assert noise["low"] == pytest.approx(0.53, abs=0.015)
    assert noise["high"] == pytest.approx(0.68, abs=0.015)
    assert report["range-dependence"].figures["from_1e15"] == pytest.approx(0.43, abs=0.01)
    assert report["loss-floor"].figures["miss"] < -0.2
    assert report["early-training"].figures["rows"] > 20
    assert report["few-replicates"].figures == {"single": 5, "sizes": 10}
    assert "episodes-disagree" not in report
    assert report["budget-missed"].figures["worst"] == pytest.approx(1.21, abs=0.005)


def test_the_whole_nethack_log(nethack):
    path, _ = nethack
    report = {finding.code: finding for finding in audit(load_runs(path)).findings}
    assert report["checkpoint-for-two-budgets"].figures["rows"] == 4
    assert report["budget-missed"].figures["worst"] == pytest.approx(3.03, abs=0.005)
    assert "its exponent too low" in report["budget-missed"].bias
    # The log-quadratic surface: .22 with all budgets, .66 with those from 5e16 on.
    moves = report["range-dependence"].figures
    assert moves["from_1e14"] == pytest.approx(0.22, abs=0.01)
    assert moves["from_5e16"] == pytest.approx(0.66, abs=0.01)


def atari_log(reference_data, game: str) -> pd.DataFrame:
    """The published table of one game as a run log, compute as published."""
    table = pd.read_csv(reference_data / "atari_il" / "atari_il.csv")
    table = table[(table.game == game) & (table.seed == "main")]
    wide = table.pivot_table(
        index=["flops", "params"], columns="kind", values="value"
    ).reset_index()
    wide = wide.dropna(subset=["eval_loss", "flop_params_to_samples"])
    wide = wide.rename(columns={"eval_loss": "loss", "flop_params_to_samples": "samples"})
    wide["run_id"] = game + "-" + wide.params.astype(int).astype(str)
    return wide[["run_id", "params", "samples", "flops", "loss"]].assign(budget=wide.flops)


def counted_flops(params: float, actions: int) -> float:
    """FLOP a sample of the published network, counted at output resolutions (3 x forward)."""
    # params = 68 w^2 + (261 + 98 actions) w + actions, solved for the width w
    linear = 261 + 98 * actions
    width = (-linear + math.sqrt(linear**2 + 4 * 68 * (params - actions))) / (2 * 68)
    convolutions = 20**2 * 64 * 4 * width + 9**2 * 16 * 2 * width**2 + 7**2 * 9 * 4 * width**2
    return 6 * (convolutions + 98 * width * actions)


@pytest.mark.parametrize(
    ("game", "actions", "smallest_overcount", "published_exponent"),
    [("BattleZone", 18, 16.8, 0.585), ("Breakout", 4, 17.0, 0.742)],
)
def test_the_published_atari_flop_error(
    reference_data, game, actions, smallest_overcount, published_exponent
):
    """Found from N, D and C alone, with the direction that a recount confirms."""
    runs = atari_log(reference_data, game)
    last = {"BattleZone": 1e18, "Breakout": 5e17}[game]
    finding = found(runs[(runs.flops >= 2e14) & (runs.flops <= last)])["cost-drift"]
    assert finding.severity == "serious"
    assert finding.figures["slope"] < -0.1
    assert "both too high" in finding.bias
    # The recount: too high everywhere, most for the narrowest network.
    sizes = np.sort(runs.params.unique())
    by_size = (runs.flops / runs.samples).groupby(runs.params).median()
    over = by_size.loc[sizes] / [counted_flops(params, actions) for params in sizes]
    assert over.iloc[0] == pytest.approx(smallest_overcount, rel=0.02)
    assert over.min() > 4
    assert np.polyfit(np.log(sizes), np.log(over), 1)[0] < -0.1
    # So the exponent that a user reads off is too high, and the audit's correction is downwards.
    assert finding.figures["exponent"] == pytest.approx(published_exponent, abs=0.03)
    assert finding.figures["exponent_corrected"] < finding.figures["exponent"] - 0.03


def test_a_log_with_the_right_atari_flop_has_less_drift(reference_data):
    runs = atari_log(reference_data, "BattleZone")
    right = runs.assign(
        flops=[n * counted_flops(p, 18) for n, p in zip(runs.samples, runs.params, strict=True)]
    ).drop(columns="budget")
    finding = found(right)["cost-drift"]
    assert finding.figures["spread"] == pytest.approx(369 / 308, rel=0.01)
    assert finding.severity == "warning"
