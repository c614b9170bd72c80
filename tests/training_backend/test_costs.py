"""What a plan will take, and plans that are larger than their data."""

from typing import Any

import numpy as np
import pytest
from markov_source import BENCH, MarkovSource

from scaling_analysis import PlanError, ScalingWarning
from training_backend import costs
from training_backend.checkpoint import KEPT
from training_backend.config import RunConfig
from training_backend.costs import check_epochs, dry_run, open_splits, seconds_per_step


def _config(**changes: Any) -> RunConfig:
    row = {
        "run_id": "r",
        "agent": "lstm",
        "task": "markov",
        "params": 2e3,
        "budget": 1.6e9,
        "snapshots": "4e8;1.6e9",
        "seed": 0,
        "batch_size": 256,
    }
    return RunConfig.from_plan_row(row | changes, MarkovSource())


def test_dry_run_says_what_runs_would_cost() -> None:
    configs = [_config(), _config(run_id="other", params=4e3, seed=1)]
    table = dry_run(configs, BENCH)
    assert table["run_id"].tolist() == ["r", "other"]
    source = MarkovSource()
    assert (table["epochs"] * len(source)).round().tolist() == table["samples"].tolist()
    assert table["hours"].between(1e-6, 0.1).all()
    assert (table["flops_per_sample"] * table["samples"] >= 1.6e9).all()
    # two snapshots of the weights; weights, average and two moments in every training state
    numbers = 2 + 4 * KEPT
    assert table["disk_gb"].tolist() == pytest.approx(4e-9 * numbers * table["params"])
    assert (table["memory_gb"] > 20e-9 * table["params"]).all()


def test_runs_of_a_stack_are_timed_as_one_and_share_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [_config(), _config(run_id="other", seed=1), _config(run_id="large", params=4e3)]
    assert 0 < seconds_per_step(configs[:2], MarkovSource(), "cpu") < 60
    timed: list[list[str]] = []

    def time_them(together: list[RunConfig], *_: object) -> float:
        timed.append([config.run_id for config in together])
        return 3600.0

    monkeypatch.setattr(costs, "seconds_per_step", time_them)
    for device, groups in (("cpu", [["r"], ["large"]]), ("cuda", [["r", "other"], ["large"]])):
        table = dry_run(configs, BENCH, device=device)
        assert timed == groups
        shares = [1 / len(groups[0])] * 2 + [1]
        steps = [config.snapshot_steps[-1] for config in configs]
        assert table["hours"].tolist() == [n * s for n, s in zip(steps, shares, strict=True)]
        timed.clear()


def test_a_plan_larger_than_the_data_says_how_large_and_asks() -> None:
    config = _config()
    sizes = {d: len(split) for d, split in open_splits([config], BENCH).items()}
    epochs = config.samples / sizes[config.data]
    check_epochs([config], sizes, epochs)
    with pytest.raises(PlanError) as raised:
        check_epochs([config, _config(run_id="small", budget=4e8, snapshots="4e8")], sizes, 5)
    message = str(raised.value)
    assert "1 of 2 runs go over them more than 5 times" in message
    assert f"run r {epochs:.3g} times ({config.samples:,} samples" in message
    assert f"Give {-(-config.samples // 5):,} transitions or more" in message
    allowed = float(message.rsplit("--max-epochs ", 1)[1])
    assert epochs <= allowed < epochs + 0.11
    check_epochs([config], sizes, allowed)


def test_a_run_that_does_not_fit_is_told_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def time_them(together: list[RunConfig], *_: object) -> float:
        if together[0].run_id == "large":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return 3600.0

    monkeypatch.setattr(costs, "seconds_per_step", time_them)
    configs = [_config(run_id="large", params=4e3), _config()]
    with pytest.warns(ScalingWarning, match=r"run large: out of memory on cpu, .* parameters fit"):
        table = dry_run(configs, BENCH)
    assert np.isnan(table["hours"][0])
    assert table["hours"][1] == configs[1].snapshot_steps[-1]
