"""Remedies in the words of the shell."""

from .conftest import shell


def test_the_remedy_is_in_words_of_the_shell(tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text("n_params,samples,val_loss\n1e5,1e6,2.5\n2e5,1e6,2.4\n")
    names = ["--map", "params=n_params", "--map", "loss=val_loss"]
    first = shell("check", raw)
    assert first.returncode == 1
    assert "--map params=n_params" in first.stderr
    second = shell("check", raw, *names)
    assert second.returncode == 1
    assert "--cost-constant 6" in second.stderr
    assert shell("check", raw, *names, "--cost-constant", 6).returncode == 0
