"""From a plan's row to a run: what is filled in, skipped and refused."""

from typing import Any

import pytest
from markov_source import MarkovSource

from scaling_analysis import PlanError
from training_backend.config import RunConfig


def _row(**changes: Any) -> dict[str, Any]:
    row = {
        "run_id": "r1",
        "agent": "lstm",
        "task": "markov",
        "params": 4e3,
        "budget": 1e10,
        "snapshots": "1e9;3e9;1e10",
        "seed": 2,
        "learning_rate": float("nan"),
        "batch_size": float("nan"),
        "protocol": "markov-1",
    }
    return row | changes


SOURCE = MarkovSource(games=3)


def test_snapshots_are_the_first_steps_that_reach_their_budget() -> None:
    config = RunConfig.from_plan_row(_row(), SOURCE)
    step = config.batch_size * config.flops_per_sample
    for budget, steps in zip(config.snapshots, config.snapshot_steps, strict=True):
        assert steps * step >= budget > (steps - 1) * step
    assert config.samples == config.snapshot_steps[-1] * config.batch_size


def test_given_learning_rate_and_batch_are_kept() -> None:
    config = RunConfig.from_plan_row(_row(learning_rate=1e-2, batch_size=512), SOURCE)
    assert (config.learning_rate, config.batch_size, config.lanes) == (1e-2, 512, 16)


def test_batch_and_rate_follow_the_size_and_not_the_budget() -> None:
    configs = [
        RunConfig.from_plan_row(_row(params=n, snapshots=f"{c:g}", budget=c), SOURCE)
        for n, c in ((4e3, 1e10), (4e3, 1e12), (50e3, 1e12), (300e3, 1e12))
    ]
    assert [c.batch_size for c in configs] == [256, 256, 512, 1024]
    rates = [c.learning_rate for c in configs]
    assert rates[0] == rates[1] > rates[2] > rates[3]
    doubled = RunConfig.from_plan_row(_row(batch_size=512.0), SOURCE)
    assert doubled.learning_rate == pytest.approx(rates[0] * 2**0.5)


def test_budget_of_few_steps_is_skipped() -> None:
    config = RunConfig.from_plan_row(_row(snapshots="1e8;3e9", batch_size=256), SOURCE)
    assert config.skipped == (1e8,)
    assert config.snapshots == (3e9,)
    assert 256 * config.flops_per_sample > 0.05 * 1e8


def test_missing_snapshots_mean_the_budget() -> None:
    config = RunConfig.from_plan_row(_row(snapshots=""), SOURCE)
    assert config.snapshots == (1e10,)


def test_json_round_trip_and_hash() -> None:
    config = RunConfig.from_plan_row(_row(), SOURCE, averaging=0.2)
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert again.hash == config.hash
    assert RunConfig.from_plan_row(_row(seed=3), SOURCE, averaging=0.2).hash != config.hash


def test_json_of_another_version_is_refused() -> None:
    text = RunConfig.from_plan_row(_row(), SOURCE).to_json().replace('"clip"', '"clipping"')
    with pytest.raises(PlanError, match="by this version: clip, clipping"):
        RunConfig.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": 5.0}, "run r1: params=5: no lstm agent of this task has so many"),
        ({"agent": "gru"}, "run r1: agent 'gru' is not known"),
        ({"snapshots": "1e7", "budget": 1e7}, "run r1: a step of 256 samples costs .* FLOP, over"),
        ({"batch_size": 100.0}, "run r1: batch_size=100: give a multiple of the chunk of 32"),
        ({"snapshots": "3e9;1e9"}, "run r1: '3e9;1e9' must hold increasing positive budgets"),
    ],
)
def test_rows_that_cannot_be_sized_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RunConfig.from_plan_row(_row(**changes), SOURCE)
