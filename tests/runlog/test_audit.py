"""The audit: each thing that ruins a fit is found, in figures, with the direction of its bias."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_analysis.errors import FitStatus, RunLogError
from scaling_analysis.runlog import load_episodes, load_runs
from scaling_analysis.runlog.audit import Audit, audit

ALPHA, BETA = 0.35, 0.45


def ladder(
    *, sizes=17, budgets=6, seeds=2, noise=0.002, floor=0.0, centre=1.0, span=4.0, drift=0.0
) -> pd.DataFrame:
    """Single runs on isoFLOP slices of L = floor + 30 N^-alpha + 60 D^-beta, returns beside it.

    `centre` times the best size is the middle of each slice, `span` octaves to either side; C is
    counted as 6 (N / 1e6)^drift N D instead of 6 N D.
    """
    rng = np.random.default_rng(7)
    exponent = BETA / (ALPHA + BETA)
    constant = (30 * ALPHA / (60 * BETA)) ** (1 / (ALPHA + BETA))
    rows = []
    for budget in 10 ** np.linspace(12, 17, budgets):
        best = constant * (budget / 6) ** exponent * centre
        for params in np.round(best * 2 ** np.linspace(-span, span, sizes)):
            samples = budget / (6 * (params / 1e6) ** drift * params)
            for seed in range(seeds):
                loss = floor + 30 * params**-ALPHA + 60 * samples**-BETA
                loss *= math.exp(noise * rng.standard_normal())
                rows.append(
                    {
                        "run_id": f"{budget:.0e}-{params:.0f}-{seed}",
                        "seed": seed,
                        "params": params,
                        "samples": samples,
                        "unique_samples": samples / 1.5,
                        "flops": budget,
                        "budget": budget,
                        "loss": loss,
                        "loss_se": 0.001 * loss,
                        "mean_return": 3000 * math.exp(-2 * loss),
                        "return_se": 60 * math.exp(-2 * loss),
                        "episodes": 200,
                        "protocol": "v1",
                    }
                )
    return pd.DataFrame(rows)


def found(runs, **more):
    return {finding.code: finding for finding in audit(load_runs(runs), **more).findings}


def test_a_sound_log_has_no_serious_finding_and_no_warning():
    report = audit(load_runs(ladder()))
    assert report.status == FitStatus.OK
    assert {finding.severity for finding in report.findings} <= {"note"}
    assert (report.rows, report.usable, report.runs) == (204, 204, 204)


# --- compute -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("drift", "side"), [(-0.2, "high"), (0.2, "low")])
def test_a_drifting_counter_is_found_with_the_direction_of_its_bias(drift, side):
    """Sizes centred on the optimum that a user of the wrong count would find."""
    runs = ladder(noise=0.0, seeds=1, sizes=161, span=9, drift=drift)
    finding = found(runs)["cost-drift"]
    assert finding.severity == "serious"
    assert finding.figures["slope"] == pytest.approx(drift, abs=1e-9)
    truth = BETA / (ALPHA + BETA)
    # What such a count does to the exponent, and what the audit makes of it.
    biased = BETA / (ALPHA + BETA * (1 + drift))
    assert finding.figures["exponent"] == pytest.approx(biased, rel=0.02)
    assert finding.figures["exponent_corrected"] == pytest.approx(truth, rel=0.02)
    assert f"the exponents of N_opt and of D_opt are both too {side}" in finding.bias


def test_a_counter_that_is_only_too_low_keeps_the_exponents():
    runs = ladder()
    runs["flops"] /= 3
    runs["budget"] /= 3
    finding = found(runs)["cost-below-6"]
    assert finding.figures["constant"] == pytest.approx(2, rel=1e-12)
    assert "cost-drift" not in found(runs)


def test_parameters_that_cost_nothing_are_told_from_a_wrong_counter():
    runs = ladder()
    runs["params_core"] = runs.params
    runs["params"] += 2e5
    finding = found(runs)["cost-drift"]
    assert finding.severity == "warning"
    assert "embeddings" in finding.remedy
    share = found(runs)["embedding-share"]
    assert share.figures["smallest"] < 0.01 < 0.5 < share.figures["largest"]
    assert share.figures["relation"] > 1
    runs["params_core"] = runs.params + 1
    assert found(runs)["core-exceeds-params"].severity == "serious"


def test_assumed_compute_cannot_be_checked():
    runs = load_runs(ladder().drop(columns="flops"), cost_constant=6)
    codes = [finding.code for finding in audit(runs).findings]
    assert "cost-assumed" in codes
    assert "cost-drift" not in codes


def test_rows_that_overshoot_their_budget_are_found():
    runs = ladder()
    large = (runs.budget < 1e13) & (runs.params > runs.params[runs.budget < 1e13].median())
    runs.loc[large, "flops"] *= runs.params[large] / runs.params[large].min()
    runs.loc[large, "samples"] *= runs.params[large] / runs.params[large].min()
    finding = found(runs)["budget-missed"]
    assert finding.severity == "serious"  # beyond ten times: another unit or another run
    assert finding.figures["rows"] == int((runs.flops > 1.05 * runs.budget).sum())
    assert "N_opt is too large at the low budgets, its exponent too low" in finding.bias
    some = load_runs(ladder().assign(flops=lambda log: 1.2 * log.budget))
    finding = next(f for f in audit(some).findings if f.code == "budget-missed")
    assert finding.severity == "warning"
    assert finding.figures["typical"] == pytest.approx(1.2)


def test_samples_beyond_what_compute_pays_for_are_found():
    """One size in several budgets, the first of them overshot by whole batches."""
    samples = np.array([3e5, 2e6, 2e7, 2e8])
    runs = pd.DataFrame(
        {"run_id": "a", "params": 1e5, "samples": samples, "loss": [2.5, 2.2, 2.0, 1.9]}
    )
    runs["flops"] = 6e5 * np.array([1e5, 2e6, 2e7, 2e8])
    finding = found(runs)["cost-uneven"]
    assert finding.figures == {"rows": 1, "worst": pytest.approx(1 / 3)}
    assert "exponent too low" in finding.bias


def test_repetition_is_counted_in_epochs():
    runs = ladder().assign(unique_samples=lambda log: log.samples / 6)
    finding = found(runs)["repetition"]
    assert finding.severity == "warning"
    assert finding.figures == {"rows": 204, "most": pytest.approx(6)}
    assert found(runs.assign(unique_samples=lambda log: log.samples / 3))[
        "repetition"
    ].severity == ("note")
    assert "repetition" in found(ladder().drop(columns="unique_samples").assign(epochs=5.0))
    assert "repetition-unknown" in found(ladder().drop(columns="unique_samples"))


# --- profiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "end", "wrong"), [(60.0, "smallest", "large"), (1 / 60, "largest", "small")]
)
def test_minima_at_the_end_of_the_sizes(centre, end, wrong):
    finding = found(ladder(centre=centre))["no-interior-minimum"]
    assert finding.severity == "serious"
    assert finding.figures["edges"] == 6
    assert f"6 at the {end} size, where N_opt comes out too {wrong}" in finding.bias


def test_the_lean_of_edge_minima_follows_the_budgets_they_lie_at():
    runs = ladder()
    best = runs.groupby("budget").params.transform("median")
    cut = (runs.budget < 2e13) & (runs.params < 1.5 * best)  # low budgets lack small sizes
    finding = found(runs[~cut])["no-interior-minimum"]
    assert finding.figures["edges"] == 2
    assert "2 at the smallest size, where N_opt comes out too large. Together they make its " \
        "exponent too low." in finding.bias  # fmt: skip


def test_few_sizes_make_few_optima():
    runs = ladder(sizes=5, budgets=12, span=8)
    runs["params"] = 10 ** (np.round(np.log10(runs.params) / 1.5) * 1.5)
    runs["samples"] = runs.flops / (6 * runs.params)
    runs = runs.drop_duplicates(["params", "budget", "seed"])
    finding = found(runs)["few-distinct-optima"]
    assert finding.figures["distinct"] < 0.67 * finding.figures["budgets"]
    assert "too narrow" in finding.bias


def test_too_few_profiles():
    assert "few-profiles" in found(ladder(budgets=1))
    assert "few-profiles" in found(ladder(sizes=2))
    assert "no-budgets" in found(ladder().drop(columns="budget"))


def test_a_floor_is_seen_where_the_line_misses():
    finding = found(ladder(floor=0.3))["loss-floor"]
    assert finding.figures["miss"] < -0.05
    assert "too low" in finding.bias
    assert "loss-floor" not in found(ladder(floor=0.0))


# --- rows --------------------------------------------------------------------------------------


def curves(transient: bool, sizes=(1e4, 3e4, 1e5, 3e5)) -> pd.DataFrame:
    """Long runs; with a transient each starts on the plateau of an untrained network."""
    rows = []
    for params in sizes:
        for samples in 4.0 ** np.arange(6, 16):
            loss = 0.2 + 10 * params**-ALPHA + 200 * samples**-BETA
            if transient:
                loss = (loss**-8 + 2.0**-8) ** (-1 / 8)
            rows.append((f"{params:.0f}", params, samples, 6 * params * samples, loss))
    return pd.DataFrame(rows, columns=["run_id", "params", "samples", "flops", "loss"])


def test_rows_before_the_steepest_fall_are_early_training():
    finding = found(curves(transient=True))["early-training"]
    assert finding.figures["runs"] == 4
    assert 4 <= finding.figures["rows"] <= 20
    assert "floor goes towards zero" in finding.bias
    assert "early-training" not in found(curves(transient=False))


def test_a_remedy_that_is_a_condition_does_what_it_says():
    runs = curves(transient=True)
    condition = found(runs)["early-training"].remedy.split('"')[1]
    codes = {finding.code for finding in audit(load_runs(runs, where=condition)).findings}
    assert "left-out" in codes
    assert "early-training" not in codes
    runs = ladder()
    runs.loc[runs.budget < 2e13, "flops"] *= 1.2
    condition = found(runs)["budget-missed"].remedy.split('"')[1]
    assert condition == "budget >= 1e14"
    codes = {finding.code for finding in audit(load_runs(runs, where=condition)).findings}
    assert "budget-missed" not in codes


def test_a_loss_that_rises_is_not_taken_for_training():
    runs = curves(transient=False)
    last = runs.index[runs.run_id == "100000"][-2:]
    runs.loc[last, "loss"] *= 3
    finding = found(runs)["rising-loss"]
    assert finding.figures["rows"] == 2
    assert "'100000'" in finding.where
    assert "rising-loss" not in found(
        runs.assign(status=["ok"] * 28 + ["diverged"] * 2 + ["ok"] * 10)
    )


def test_copies_under_another_name():
    runs = ladder(seeds=1)
    copy = runs[:3].assign(run_id=["x", "y", "z"])
    finding = found(pd.concat([runs, copy], ignore_index=True))["copied-checkpoint"]
    assert finding.severity == "serious"
    assert finding.figures["rows"] == 6
    assert "'x'" in finding.where


def test_repeated_rows_and_shared_checkpoints_are_noted():
    runs = ladder()
    assert found(pd.concat([runs, runs[:5]]))["duplicate-rows"].figures["rows"] == 5
    twice = pd.concat([runs, runs[:1].assign(budget=2e12, loss=runs.loss[0] * 1.001)])
    assert found(twice)["checkpoint-for-two-budgets"].figures["rows"] == 2


def test_a_run_with_two_sizes():
    runs = curves(transient=False)
    runs.loc[0, "params"] = 9.0
    assert found(runs)["run-mixes-values"].severity == "serious"


def test_one_seed_and_few_runs():
    once = found(ladder(seeds=1))
    assert "one-seed" in once
    assert "one-seed" not in found(ladder(seeds=2))
    assert found(curves(transient=False))["few-runs"].figures == {"runs": 4, "rows": 40}
    some = curves(transient=False)
    both = pd.concat([some, some[:10].assign(run_id="again", loss=some.loss[:10] * 1.01)])
    assert found(both)["few-replicates"].figures == {"single": 3, "sizes": 4}


def test_rows_left_out_are_listed_with_their_reasons():
    log = ladder()
    runs = load_runs(log, where="budget > 2e13", exclude={log.run_id.iloc[-1]: "restarted"})
    finding = {finding.code: finding for finding in audit(runs).findings}["left-out"]
    assert finding.where == "68 excluded (not where budget > 2e13); 1 excluded (restarted)"
    assert finding.figures["rows"] == 69


def test_columns_that_look_like_the_schema_are_pointed_out():
    finding = found(ladder().rename(columns={"loss_se": "loss_sem"}))["unread-columns"]
    assert "columns={'loss_se': 'loss_sem'}" in finding.remedy


# --- evaluation --------------------------------------------------------------------------------


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


# --- the result --------------------------------------------------------------------------------


def test_findings_come_in_order_of_importance():
    report = audit(load_runs(ladder(centre=60, seeds=1).drop(columns="loss_se")))
    ranks = [["serious", "warning", "note"].index(f.severity) for f in report.findings]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3
    assert report.status == FitStatus.DOUBTFUL
    assert report.messages == tuple(f.what for f in report.findings if f.severity == "serious")
    frame = report.to_frame()
    assert list(frame.columns) == ["code", "severity", "what", "where", "bias", "remedy"]
    assert list(frame.code) == [finding.code for finding in report.findings]


def test_a_report_survives_json():
    report = audit(load_runs(ladder(seeds=1)))
    again = Audit.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert again.summary() == report.summary()


def test_tasks_are_looked_at_one_by_one():
    one, two = ladder().assign(task="one"), ladder(drift=-0.2).assign(task="two")
    two["run_id"] = "two-" + two.run_id
    report = audit(load_runs(pd.concat([one, two])))
    (drift,) = [finding for finding in report.findings if finding.code == "cost-drift"]
    assert drift.what.startswith("two: C/(N D) is not constant")


def test_a_raw_table_is_loaded_first():
    assert audit(ladder()).findings == audit(load_runs(ladder())).findings
    with pytest.raises(RunLogError, match="no column 'params'"):
        audit(ladder().drop(columns=["params", "flops"]))


def test_nothing_to_audit():
    with pytest.raises(RunLogError, match=r"no row has status ok.*\(204 diverged\)"):
        audit(load_runs(ladder().assign(status="diverged")))
    with pytest.raises(RunLogError, match="expert_return=nan"):
        audit(ladder(), expert_return=math.nan)


def test_a_constant_loss():
    assert found(ladder().assign(loss=1.5))["constant-loss"].severity == "serious"


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from([1.0, 3e3, 1e9]),
            st.sampled_from([1.0, 7e5, 1e12]),
            st.sampled_from([1.0, 1e10, 1e25]),
            st.sampled_from([math.nan, 1e10, 3e10, 1e11]),
            st.sampled_from([math.nan, -1.0, 0.0, 0.5, 2.0, 1e50]),
            st.sampled_from([math.nan, -5.0, 0.0, 10.0]),
            st.sampled_from(["ok", "ok", "ok", "diverged"]),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: (row[0], row[2], row[4]),
    )
)
def test_no_log_that_loads_breaks_the_audit(rows):
    names = ["run_id", "params", "samples", "flops", "budget", "loss", "mean_return", "status"]
    runs = load_runs(pd.DataFrame(rows, columns=names), protocol="v1")
    if not (runs.status == "ok").any():
        return
    report = audit(runs)
    assert Audit.from_dict(json.loads(json.dumps(report.to_dict()))).summary() == report.summary()
    assert "nan" not in report.summary()


def test_golden_summary():
    runs = curves(transient=False, sizes=(1e4, 1e5)).assign(
        flops=lambda log: 6 * (log.params / 1e4) ** -0.5 * log.params * log.samples
    )
    assert audit(runs).summary() == GOLDEN_SUMMARY


GOLDEN_SUMMARY = """\
Audit: doubtful. 20 rows, 20 usable, 2 runs; 1 serious, 2 warning, 3 note

[serious] cost-drift: C/(N D) is not constant in N: 6 at N = 1e4, 1.9 at N = 1e5, a spread of 3.16 \
times, as N^-0.500.
  where: 2 sizes; C/(N D) by size: 6, 1.9
  bias: If the true cost of a parameter and sample is the same for every size, small models are \
charged too much: the exponents of N_opt and of D_opt are both too high.
  do: Recount the FLOP of one step by hand for the smallest and the largest size. A convolution \
costs its weights times its output positions; a wrong resolution, a missing backward pass or an \
attention term left out shows up like this. If the count is right, D_opt follows from the FLOP a \
sample of each size, never from 6 N D.

[warning] one-seed: No size was trained twice: the noise between runs cannot be measured.
  where: 2 sizes
  bias: Intervals rest on the residuals of the fit alone and are too narrow where the law is wrong.
  do: Repeat at least the runs near the optimum with another seed.

[warning] few-runs: All 20 rows come from 2 runs.
  bias: Checkpoints of one run are not independent: rows resampled one by one give intervals that \
are far too narrow.
  do: Resample runs; with so few the jackknife over runs is the safer interval.

[note] no-budgets: No budget is logged: isoFLOP profiles can be neither fitted nor checked.
  do: Log the budget that each checkpoint stands for; the parametric fit needs none.

[note] repetition-unknown: Neither unique_samples nor epochs is logged: repeated data cannot be \
seen.
  do: Log unique_samples; the forecast can then say when data run out.

[note] no-loss-error: No standard error of the loss is logged.
  bias: Evaluation noise is taken for noise between runs.
  do: Log loss_se: the spread of the mean loss over held-out episodes."""


# --- published logs ----------------------------------------------------------------------------


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
