"""`fit_surface`: recovery, forecasts, intervals and bad input."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.surface_fit import SurfaceFit

N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
GRID = pd.DataFrame({"N": N, "D": D})
BEYOND = pd.DataFrame({"N": [3e9, 1e10], "D": [3e11, 1e12]})
HOFFMANN = 1.8 + 480 / N**0.35 + 2100 / D**0.37
SURFACES = {
    "additive": (
        HOFFMANN,
        {"E": 1.8, "A_N": 480.0, "alpha_N": 0.35, "A_D": 2100.0, "alpha_D": 0.37},
    ),
    "tied": (
        1.8 + 480 / N**0.3 + 210 / D**0.3,
        {"E": 1.8, "A_N": 480.0, "alpha_N": 0.3, "A_D": 210.0, "alpha_D": 0.3},
    ),
    "log_linear": (
        np.exp(5 - 0.1 * np.log(N) - 0.2 * np.log(D)),
        {"c_0": 5.0, "c_N": -0.1, "c_D": -0.2},
    ),
    "product": (np.exp(5 - 0.1 * np.log(N * D)), {"c_0": 5.0, "c_N": -0.1, "c_D": -0.1}),
    "log_quadratic": (
        np.exp(9 - 0.3 * np.log(N) - 0.2 * np.log(D) + 0.004 * np.log(N) * np.log(D)),
        {"c_0": 9.0, "c_N": -0.3, "c_D": -0.2, "c_N_D": 0.004},
    ),
    "kaplan": (
        ((8.8e13 / N) ** (0.076 / 0.103) + 5.4e13 / D) ** 0.103,
        {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.103},
    ),
}


@pytest.mark.parametrize("form", SURFACES)
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_exact_recovery_in_any_unit(form, unit):
    y, expected = SURFACES[form]
    fit = sa.fit_surface(GRID, unit * y, form=form)
    for name, value in expected.items():
        if name == "E" or name.startswith("A_"):
            value = unit * value
        if name == "c_0":
            value = value + np.log(unit)
        if name in ("N_c", "D_c") and unit != 1:
            continue  # constants of a law that has no unit of its own
        np.testing.assert_allclose(fit.parameters[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(fit.fitted_values(), unit * y, rtol=1e-6)


def test_three_inputs():
    rng = np.random.default_rng(0)
    inputs = GRID.assign(U=10 ** rng.uniform(5, 8, size=36))
    y = HOFFMANN + 30 / inputs["U"] ** 0.25
    fit = sa.fit_surface(inputs, y, form="additive")
    assert fit.parameters["alpha_U"] == pytest.approx(0.25, rel=1e-5)
    average = sa.fit_surface(inputs, y)
    assert np.isfinite(average.predict(inputs.iloc[:2] * 10).to_numpy()).all()


def test_a_rising_surface_and_one_of_either_sign():
    rising = sa.fit_surface(GRID, 1 / HOFFMANN, direction="increasing", form="additive")
    assert rising.parameters["E"] == pytest.approx(1.8, rel=1e-6)  # of 1/y
    row = sa.fit_surface(GRID, 1 / HOFFMANN, direction="increasing").predict(BEYOND).iloc[1]
    truth = 1 / (1.8 + 480 / 1e10**0.35 + 2100 / 1e12**0.37)
    assert row["run_lo"] <= row["lo"] < row["value"] < row["hi"] <= row["run_hi"]
    assert row["value"] == pytest.approx(truth, rel=0.02)
    signed = sa.fit_surface(GRID, HOFFMANN - 2.5, form="additive")
    assert signed.residual_space == "linear"
    assert signed.parameters["E"] == pytest.approx(-0.7, rel=1e-5)


def test_the_average_forecasts_beyond():
    y = HOFFMANN * np.exp(0.002 * np.random.default_rng(1).normal(size=36))
    table = sa.fit_surface(GRID, y).predict(BEYOND)
    truth = 1.8 + 480 / BEYOND["N"] ** 0.35 + 2100 / BEYOND["D"] ** 0.37
    np.testing.assert_allclose(table["value"], truth, rtol=0.02)
    assert (table["lo"] < truth).all()
    assert (truth < table["hi"]).all()
    assert (table["run_lo"] <= table["lo"]).all()


def test_weights_go_to_the_forms_that_forecast_well():
    fit = sa.fit_surface(GRID, HOFFMANN)
    weights = dict(zip(fit.forms, fit.form_weights, strict=True))
    assert weights["additive"] > 5 * weights["log_linear"]
    assert fit.form_weights.sum() == pytest.approx(1.0)


def test_the_hindcast_holds_out_the_largest_compute():
    shuffled = GRID.sample(frac=1, random_state=0)
    fit = sa.fit_surface(shuffled, HOFFMANN[shuffled.index])
    compute = np.log(shuffled["N"] * shuffled["D"]).to_numpy()
    assert fit.surface.axis.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(fit.surface.position, compute, atol=0.051)


def test_distance_counts_in_every_direction():
    fit = sa.fit_surface(GRID, HOFFMANN * np.exp(0.01 * np.cos(np.arange(36))))
    table = fit.predict(pd.DataFrame({"N": [1e7, 1e9, 1e12, 1e6], "D": [1e9, 1e11, 1e8, 1e5]}))
    width = np.log(table["hi"] / table["lo"])
    assert max(width[:2]) < width[2]
    assert width[0] < width[3]


def test_row_and_column_order_do_not_matter():
    y = HOFFMANN * np.exp(0.01 * np.random.default_rng(1).normal(size=36))
    shuffle = np.random.default_rng(2).permutation(36)
    one = sa.fit_surface(GRID, y).predict(BEYOND)
    other = sa.fit_surface(GRID[["D", "N"]].iloc[shuffle], y[shuffle]).predict(BEYOND)
    np.testing.assert_allclose(other[one.columns], one, rtol=1e-6)


def test_an_input_that_never_varies_takes_no_part():
    fit = sa.fit_surface(GRID.assign(width=64.0), HOFFMANN, form="additive")
    assert fit.inputs == ("N", "D")
    assert "width never varies" in fit.messages[0]
    assert fit.predict(BEYOND.assign(width=128.0))["value"].notna().all()


def test_arrays_serve_as_well():
    one = sa.fit_surface(GRID, HOFFMANN, form="tied").value(BEYOND)
    other = sa.fit_surface(GRID.to_numpy(), HOFFMANN, form="tied").value(BEYOND.to_numpy())
    np.testing.assert_array_equal(one, other)


def test_new_runs_are_less_certain_than_rows():
    run = np.repeat(np.arange(6), 6)
    rng = np.random.default_rng(3)
    y = HOFFMANN * np.exp(0.05 * rng.normal(size=6)[run] + 0.002 * rng.normal(size=36))
    inputs = pd.DataFrame({"N": np.tile(N[:6], 6), "D": np.repeat(D[::6], 6)})
    y = y * 0 + (1.8 + 480 / inputs["N"] ** 0.35) * np.exp(0.05 * rng.normal(size=6)[run])
    with_runs = sa.fit_surface(inputs, y, run=run, form="product")
    assert with_runs.noise > sa.fit_surface(inputs, y, form="product").noise


def test_standard_errors_weigh_rows():
    off, se = HOFFMANN.copy(), 0.001 * HOFFMANN
    off[20] *= 1.5
    se[20] = HOFFMANN[20]
    wary = sa.fit_surface(GRID, off, y_se=se, form="log_quadratic")
    trusting = sa.fit_surface(GRID, off, form="log_quadratic")
    truth = 1.8 + 480 / N[20] ** 0.35 + 2100 / D[20] ** 0.37
    at = GRID.iloc[[20]]
    assert abs(wary.value(at)[0] - truth) < 0.5 * abs(trusting.value(at)[0] - truth)


@pytest.mark.parametrize(
    "y",
    [np.ones(36), np.zeros(36), -HOFFMANN, HOFFMANN - 2.5, 1e-200 * HOFFMANN, 1e200 * HOFFMANN],
    ids=["ones", "zeros", "negative", "crossing", "tiny", "huge"],
)
@pytest.mark.parametrize("form", ["auto", "additive", "log_quadratic"])
def test_no_interval_is_nan_or_of_zero_width(y, form):
    table = sa.fit_surface(GRID, y, form=form).predict(pd.concat([GRID.iloc[:2], BEYOND]))
    assert np.isfinite(table.to_numpy()).all()
    assert (table["lo"] < table["hi"]).all()
    assert (table["run_lo"] < table["run_hi"]).all()


def test_the_same_rows_give_the_same_bytes_whatever_the_generator():
    y = HOFFMANN * np.exp(0.01 * np.random.default_rng(1).normal(size=36))
    first = json.dumps(sa.fit_surface(GRID, y).to_dict())
    assert json.dumps(sa.fit_surface(GRID, y, rng=np.random.default_rng(3)).to_dict()) == first


def test_four_rows_are_answered():
    fit = sa.fit_surface(GRID.iloc[[0, 7, 14, 21]], HOFFMANN[[0, 7, 14, 21]])
    assert fit.status == FitStatus.DOUBTFUL
    assert fit.forms == ("product",)
    assert np.isfinite(fit.predict(BEYOND).to_numpy()).all()


def test_refit_follows_weights_and_responses():
    y = HOFFMANN * np.exp(0.005 * np.random.default_rng(1).normal(size=36))
    fit = sa.fit_surface(GRID, y, form="additive")
    weights = np.ones((3, 36))
    weights[1, :6] = 0.0
    replicates = fit.refit(weights=weights)
    assert replicates.valid().tolist() == [True] * 3
    assert replicates.value(BEYOND).shape == (3, 2)
    alone = sa.fit_surface(GRID.iloc[6:], y[6:], form="additive")
    np.testing.assert_allclose(replicates.value(BEYOND)[1], alone.value(BEYOND), rtol=1e-4)
    doubled = fit.refit(response=np.stack([y, 2 * y])).parameters["E"]
    assert doubled[1] == pytest.approx(2 * doubled[0], rel=1e-4)


def test_json_round_trip():
    for form in ("auto", "additive"):
        fit = sa.fit_surface(GRID, HOFFMANN * (1 + 0.01 * np.cos(N)), form=form)
        back = SurfaceFit.from_dict(json.loads(json.dumps(fit.to_dict())))
        pd.testing.assert_frame_equal(back.predict(BEYOND), fit.predict(BEYOND))
        assert back.summary() == fit.summary()


def test_summary_tells_the_state_first():
    lines = sa.fit_surface(GRID, HOFFMANN, form="additive").summary().splitlines()
    assert lines[0] == "status: ok"
    assert lines[1].startswith("36 rows of N, D, y decreasing; residuals of log y, sd 0.000")
    assert lines[2] == "additive: E = 1.8, A_N = 480, alpha_N = 0.35, A_D = 2100, alpha_D = 0.37"


BAD = {
    "3 rows": ((GRID[:3], [3, 2, 1]), {}, "3 rows: an extrapolation needs at least 4"),
    "no pairs": ((GRID, [3, 2, 1]), {}, "inputs have 36 rows, y 3"),
    "nan": ((GRID, np.r_[np.nan, HOFFMANN[1:]]), {}, r"y\[0\] is nan"),
    "text": ((GRID.assign(N="big"), HOFFMANN), {}, "N holds something that is no number"),
    "zero": ((GRID.assign(D=0.0), HOFFMANN), {}, r"D\[0\] = 0: a law in logs"),
    "constant": ((GRID * 0 + 1, HOFFMANN), {}, "no input varies"),
    "form": ((GRID, HOFFMANN), {"form": "cubic"}, "form='cubic' is unknown"),
    "direction": ((GRID, HOFFMANN), {"direction": "down"}, "'decreasing' or"),
    "few rows": (
        (GRID.iloc[::8], HOFFMANN[::8]),
        {"form": "additive"},
        "form='additive' has 5 parameters for 5 rows",
    ),
    "kaplan": ((GRID[["N"]], HOFFMANN), {"form": "kaplan"}, "a law of two inputs"),
    "se": ((GRID, HOFFMANN), {"y_se": -HOFFMANN}, r"y_se\[0\] = "),
    "numbers as text": ((GRID.astype(str), HOFFMANN), {}, "N holds something that is no number"),
    "twice": ((GRID.set_axis(["N", "N"], axis=1), HOFFMANN), {}, "have two columns 'N'"),
    "slipped": (
        (GRID, np.r_[1e300, HOFFMANN[1:]]),
        {},
        r"to 1e\+300 at \[0\]: more than 60 decades",
    ),
    "no column": ((GRID[[]], HOFFMANN), {}, "there is no input"),
    "ragged": (([[1.0], [1.0, 2.0]], [1.0, 2.0]), {}, "no table of numbers"),
    "no run": ((GRID, HOFFMANN), {"run": [None] * 36}, r"run\[0\] is missing"),
    "shape": ((N, HOFFMANN), {}, r"inputs have shape \(36,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    arguments, options, message = BAD[case]
    with pytest.raises(FitError, match=message):
        sa.fit_surface(*arguments, **options)


def test_misuse_is_named():
    fit = sa.fit_surface(GRID, HOFFMANN)
    with pytest.raises(FitError, match="lack the column 'D'"):
        fit.predict(BEYOND[["N"]])
    with pytest.raises(FitError, match="no parameters: name a form"):
        fit.refit(weights=np.ones(36))
    with pytest.raises(FitError, match="it is a probability"):
        fit.predict(BEYOND, level=90)
    replicates = sa.fit_surface(GRID, HOFFMANN, form="tied").refit(weights=np.ones((2, 36)))
    with pytest.raises(FitError, match="these are replicates"):
        replicates.predict(BEYOND)
