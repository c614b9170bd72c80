"""The audit of isoFLOP profiles: minima at an end, few sizes, few optima, a floor."""

import numpy as np
import pytest
from audited_logs import found, ladder


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
