"""The audit of evaluation: protocols, ceilings, episodes and standard errors."""

import pandas as pd
import pytest
from audited_logs import found, ladder

from scaling_analysis.runlog import load_episodes


def test_two_protocols_are_serious():
    runs = ladder()
    runs.loc[runs.index[:7], "protocol"] = "v2"
    finding = found(runs)["mixed-protocols"]
    assert finding.severity == "serious"
    assert "'v2': 7 rows" in finding.where


def test_returns_at_the_experts_ceiling():
    runs = ladder()
    expert = runs.mean_return.quantile(0.8)
    finding = found(runs, expert_return=float(expert))["at-ceiling"]
    assert finding.figures["rows"] == int((runs.mean_return >= 0.9 * expert).sum())
    assert "at-ceiling" not in found(runs, expert_return=1e6)
    rising = ladder(budgets=12)
    ceiling = rising.groupby("budget").mean_return.max().iloc[8]
    capped = rising.assign(mean_return=rising.mean_return.clip(upper=ceiling))
    assert found(capped)["flat-return"].figures["highest"] == pytest.approx(ceiling)
    assert "flat-return" not in found(rising)


def test_few_and_noisy_episodes():
    runs = ladder()
    runs.loc[runs.index[:9], "episodes"] = 12
    finding = found(runs)["few-episodes"]
    assert finding.figures == {"rows": 9, "fewest": 12.0}
    assert "winner's curse" in finding.bias
    noisy = found(ladder().assign(return_se=lambda log: 0.1 * log.mean_return))["noisy-returns"]
    assert noisy.figures["episodes"] == pytest.approx(800)
    assert "episodes-unknown" in found(ladder().drop(columns="episodes"))


def test_standard_errors_and_losses_that_cannot_be():
    assert "no-loss-error" in found(ladder().drop(columns="loss_se"))
    assert "zero-error" in found(ladder().assign(loss_se=0.0))
    runs = ladder()
    runs.loc[0, "loss"] = 0.0
    assert found(runs)["loss-not-positive"].severity == "serious"


def test_the_episode_table_is_compared_with_the_log():
    runs = ladder()[:2].assign(mean_return=[2.0, 5.0], return_se=1.0, episodes=2)
    table = pd.DataFrame(
        {
            "run_id": runs.run_id.repeat(2).to_numpy(),
            "samples": runs.samples.repeat(2).to_numpy(),
            "episode": [0, 1, 0, 1],
            "return": [1.0, 3.0, 4.0, 6.0],
        }
    )
    codes = set(found(runs, episodes=load_episodes(table)))
    assert not codes & {"episodes-disagree", "episodes-missing"}
    wrong = table.assign(**{"return": [1.0, 3.0, 4.0, 7.0]})
    assert found(runs, episodes=load_episodes(wrong))["episodes-disagree"].figures["rows"] == 1
    assert found(runs, episodes=load_episodes(table[:2]))["episodes-missing"].figures["rows"] == 1
