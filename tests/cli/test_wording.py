"""Remedies in the words of the shell."""


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
