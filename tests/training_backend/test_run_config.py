"""From a plan's row to a run: what is filled in, skipped and refused."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from markov_source import MarkovSource, MarkovStream

from scaling_analysis import PlanError
from training_backend.config import RunConfig, batch_size_for, chunk_for, learning_rate_for
from training_backend.sizing import measure_size
from training_backend.transformer import CONTEXT


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


def test_rules_go_on_beyond_the_sizes_that_were_measured() -> None:
    sizes = (4e5, 4.01e5, 1e7, 1e8, 5e8)
    measured = measure_size(SOURCE.fields, SOURCE.actions, 8)
    made = [replace(measured, params=int(n)) for n in sizes]
    batches = [batch_size_for(size) for size in made]
    assert batches == [1024, 1024, 4096, 16384, 32768]
    rates = [learning_rate_for(size, batch) for size, batch in zip(made, batches, strict=True)]
    assert rates[1] == pytest.approx(rates[0], rel=0.01)  # no step where the rules meet
    # Li et al. 2025 (arXiv:2503.04715): rate and batch of language models, D = 50 N samples
    for n, batch, rate in zip(sizes[2:], batches[2:], rates[2:], strict=True):
        best = 1.79 * n**-0.713 * (50 * n) ** 0.307
        theirs = best * (batch / (0.58 * (50 * n) ** 0.571)) ** 0.5
        assert rate == pytest.approx(theirs, rel=0.2)
    assert learning_rate_for(made[2], 1024) == pytest.approx(rates[2] / 2)


def test_large_transformers_are_trained_in_chunks_as_long_as_their_memory() -> None:
    measured = measure_size(SOURCE.fields, SOURCE.actions, 8)
    small, large = (replace(measured, params=n) for n in (1_900_000, 2_100_000))
    assert [chunk_for("transformer", size) for size in (small, large)] == [32, CONTEXT]
    assert chunk_for("screen-transformer-returns", large) == CONTEXT
    assert chunk_for("lstm", large) == 32


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


def test_legs_run_from_snapshot_to_snapshot() -> None:
    config = RunConfig.from_plan_row(_row(), SOURCE)
    assert [leg.end for leg in config.legs] == list(config.snapshot_steps)
    assert [leg.begin for leg in config.legs] == [0, *config.snapshot_steps[:-1]]
    assert [leg.budget for leg in config.legs] == list(config.snapshots)
    assert not any(leg.cools for leg in config.legs)


def test_cooldown_branches_leave_the_trunk_for_the_last_part_of_a_budget() -> None:
    config = RunConfig.from_plan_row(_row(), SOURCE, cooldown=0.2)
    trunk, branches = config.legs[::2], config.legs[1::2]
    assert all(leg.cools for leg in branches)
    assert not any(leg.cools for leg in trunk)
    assert [leg.budget for leg in branches] == list(config.snapshots)
    assert [leg.end for leg in branches] == list(config.snapshot_steps)
    for leg in branches:
        assert (leg.end - leg.begin) / leg.end == pytest.approx(0.2, abs=1 / leg.end)
    assert [leg.end for leg in trunk] == [leg.begin for leg in branches]
    assert [leg.begin for leg in trunk] == [0, *(leg.begin for leg in branches[:-1])]
    assert config.averaging == 0  # cooled weights are not averaged


def test_a_cooldown_beyond_half_a_budget_is_refused() -> None:
    with pytest.raises(PlanError, match=r"cooldown=0\.7: a part of the steps, 0 to \.5"):
        RunConfig.from_plan_row(_row(), SOURCE, cooldown=0.7)


def test_the_best_games_are_chosen_and_on_record() -> None:
    source = MarkovSource(games=60)
    config = RunConfig.from_plan_row(_row(agent="lstm-best"), source)
    assert config.score_threshold == np.sort(source.scores)[-6]
    used = source.subset(np.flatnonzero(source.scores >= config.score_threshold))
    assert config.data == used.fingerprint != source.fingerprint
    assert RunConfig.from_json(config.to_json()) == config


def test_demonstrations_without_scores_are_refused_by_objectives_that_need_them() -> None:
    for agent in ("lstm-best", "lstm-returns"):
        with pytest.raises(PlanError, match="run r1: these demonstrations have no scores"):
            RunConfig.from_plan_row(_row(agent=agent), _Unscored())


class _Unscored:
    fields, actions, fingerprint = SOURCE.fields, SOURCE.actions, "unscored"

    def __len__(self) -> int:
        return len(SOURCE)

    def stream(self, batch: int, chunk: int, seed: int) -> MarkovStream:
        return SOURCE.stream(batch, chunk, seed)


LATER = ("cooldown", "score_threshold", "return_edges", "return_values", "kappa")
"""Settings that the first configurations did not have."""


def test_a_configuration_from_before_a_setting_is_read_with_its_old_hash() -> None:
    config = RunConfig.from_plan_row(_row(), SOURCE)
    values = {k: v for k, v in json.loads(config.to_json()).items() if k not in LATER}
    old = RunConfig.from_json(json.dumps(values))
    assert old == config
    text = json.dumps(values, sort_keys=True)
    assert config.hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert RunConfig.from_plan_row(_row(), SOURCE, averaging=0).hash != config.hash
    cooled = RunConfig.from_plan_row(_row(), SOURCE, averaging=0, cooldown=0.1)
    assert cooled.hash != RunConfig.from_plan_row(_row(), SOURCE, averaging=0).hash


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
        ({"batch_size": 64.5}, r"run r1: batch_size=64\.5: give a multiple of the chunk of 32"),
        ({"snapshots": "3e9;1e9"}, "run r1: '3e9;1e9' must hold increasing positive budgets"),
        ({"seed": -1}, "run r1: seed=-1: seeds begin at 0"),
        ({"run_id": "../r1"}, r"run \.\./r1: a run's folder has its run_id for a name"),
        ({"run_id": ".."}, r"run \.\.: a run's folder has its run_id for a name"),
        ({"run_id": "r" * 300}, "and has 200 letters at most"),
    ],
)
def test_rows_that_cannot_be_sized_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RunConfig.from_plan_row(_row(**changes), SOURCE)
