"""Where commands write: refused before the work, made where it is missing, never lost."""

import pytest

import scaling_analysis as sa
from scaling_analysis import cli
from scaling_analysis.runlog.writing import replacing

from .conftest import QUICK, invoke, scaling


@pytest.fixture
def no_work(monkeypatch):
    def begun(*given, **options):
        raise AssertionError("the work began before its place was looked at")

    for name in ("load_runs", "forecast", "bootstrap", "write_report"):
        monkeypatch.setattr(sa, name, begun)


@pytest.mark.parametrize("command", ["forecast", "hindcast", "fit", "next", "influence", "report"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(command, no_work, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(command, tmp_path / "runs.csv", "-o", tmp_path / "file" / "out")
    assert isinstance(result.exception, NotADirectoryError)
    assert result.exception.filename == str(tmp_path / "file")


@pytest.mark.parametrize(
    ("command", "place", "error"),
    [("forecast", "", IsADirectoryError), ("report", "file", NotADirectoryError)],
)
def test_a_folder_is_no_file_and_a_file_no_folder(command, place, error, no_work, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(command, tmp_path / "runs.csv", "-o", tmp_path / place)
    assert isinstance(result.exception, error)
    assert "name a" in str(result.exception)


def test_a_folder_that_is_missing_is_made(forecast_file, tmp_path):
    for command in (("reach", forecast_file, "--loss", 0.5), ("plan", forecast_file)):
        out = tmp_path / command[0] / "new folder" / "täble.csv"
        assert f"wrote {out}" in scaling(*command, "-o", out)
        assert out.exists()


def test_an_error_names_the_file_that_was_meant(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "table.csv"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "table.csv")
    assert not list(tmp_path.iterdir())


def test_an_answer_is_shown_though_its_file_cannot_be_written(forecast_file, tmp_path, monkeypatch):
    def full(forecast, path):
        raise sa.ForecastError(f"{path}: cannot write it (No space left on device)")

    made = sa.Forecast.load(forecast_file)
    monkeypatch.setattr(sa, "load_runs", lambda *given, **options: None)
    monkeypatch.setattr(sa, "forecast", lambda *given, **options: made)
    monkeypatch.setattr(sa.Forecast, "save", full)
    result = invoke("forecast", "runs.csv", "--flops", "1e13", "-o", tmp_path / "forecast.json")
    assert isinstance(result.exception, sa.ForecastError)
    assert "N_opt" in result.stdout


def test_a_forecast_on_file_is_kept_beside_a_new_one(log, forecast_file, tmp_path):
    out = tmp_path / "forecast.json"
    out.write_bytes(forecast_file.read_bytes())
    earlier = sa.Forecast.load(out).hash
    said = scaling("forecast", log, "--flops", "1e13", "-o", out, *QUICK)
    kept = tmp_path / f"forecast-{earlier[:8]}.json"
    assert f"the forecast that stood there is now {kept}" in said
    assert kept.read_bytes() == forecast_file.read_bytes()
    assert sa.Forecast.load(out).hash != earlier


def test_the_program_says_what_stood_in_the_way(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    words = ["scaling", "report", "runs.csv", "-o", str(tmp_path / "file")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/file: is a file, name a folder.")
