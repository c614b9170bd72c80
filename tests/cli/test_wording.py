"""Remedies in the words of the shell."""

import pytest

import scaling_analysis as sa
from scaling_analysis.cli.options import of_targets
from scaling_analysis.cli.wording import in_shell_words


def test_the_remedy_is_in_words_of_the_shell(program, tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text("n_params,samples,val_loss\n1e5,1e6,2.5\n2e5,1e6,2.4\n")
    names = ["--map", "params=n_params", "--map", "loss=val_loss"]
    code, _, said = program("check", raw)
    assert code == 1
    assert "--map params=n_params" in said
    code, _, said = program("check", raw, *names)
    assert code == 1
    assert "--cost-constant 6" in said
    assert program("check", raw, *names, "--cost-constant", 6)[0] == 0


@pytest.mark.parametrize(
    "words", ["columns={'a'}", "columns={'a': b}", "import_csv(path)", "scale={'a': 1", "task='"]
)
def test_what_is_no_python_stays_as_it_is(words):
    assert in_shell_words(f"where: {words}, no such thing") == f"where: {words}, no such thing"


def test_every_method_that_a_command_takes_reaches_the_target_that_has_it():
    assert of_targets(None) == {"methods": None, "return_methods": None}
    only = of_targets(["intrinsic", "isoflop-grid", "parametric-tied"])
    assert only["methods"] == ["isoflop-grid", "parametric-tied"]
    assert only["return_methods"] == ["intrinsic", "isoflop-grid"]
    assert of_targets(["intrinsic", "log-line"])["methods"] is None
    with pytest.raises(sa.ForecastError, match=r"'nope' is not known: .*tied.*intrinsic"):
        of_targets(["nope"])


def test_returns_without_budgets_are_told_of_the_method_that_fits_them(program, tmp_path):
    log = tmp_path / "returns.csv"
    rows = [f"{n},{d},{6 * n * d},-{5 / (n * d) ** 0.1},v1" for n in (1, 2, 4) for d in (1, 2, 4)]
    log.write_text("\n".join(["params,samples,flops,mean_return,protocol", *rows]) + "\n")
    code, _, said = program("fit", log)
    assert code == 1
    assert said.endswith("; --method intrinsic needs none\n")
    code, _, said = program("forecast", log, "--flops", 1e3, "-o", tmp_path / "forecast.json")
    assert code == 1
    assert "--method intrinsic" in said
    assert "measure returns from that of random play: subtract it there" in said
    assert "runs." not in said


def test_an_import_names_what_can_be_typed(program, tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text("n_params,tokens,final loss\n1e5,1e6,2.5\n")
    words = ("import", "csv", raw, "-o", tmp_path / "runs.csv")
    code, _, said = program(*words, "--map", "loss=final loss")
    assert code == 1
    assert "--map params=n_params --map samples=tokens" in said
    assert "--scale params=1e+06" in said
    assert "{" not in said
    raw.write_text("params,samples,flops,mean_return\n1e5,1e6,6e11,30\n")
    code, _, said = program(*words)
    assert "--constant protocol=v1" in said
    assert program(*words, "--constant", "protocol=v1")[0] == 0
