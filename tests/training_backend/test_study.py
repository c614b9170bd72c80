"""A study end to end: forecast before training, each stage made once.

The training itself is replaced by a known law with noise (sweeps have tests of their own).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markov_source import BENCH

import training_backend.study as study_module
from scaling_analysis import Forecast, PlanError, TrainError, append_run, load_runs, read_plan
from training_backend.config import RunConfig
from training_backend.jobs import Bench, Place
from training_backend.rehearsal import STEPS_A_GAME
from training_backend.stages import Stages
from training_backend.study import PRESETS, Study, run_study, write_preset
from training_backend.sweep import SweepResult

REPORTS = Path(__file__).parents[2] / "reports"
SMALL = """\
name = "small"
task = "markov"
protocol = "markov-1"
evaluation_games = [6, 3]

[ladder]
flops = [3e7, 1e9]
params = [300, 8e3]
budgets = 5
sizes = 6
sizes_per_budget = 5
seeds = 2
max_epochs = 1e6

[forecast]
flops = [2e9]
spread = [0.5, 1, 2]
seeds = 1
resamples = 100
"""


def _sweep(configs: Sequence[RunConfig], bench: Bench, place: Place, **_: Any) -> SweepResult:
    """Rows of L = .3 + 10 / N^.4 + 30 / D^.4 with 1 % noise a run, and a return that follows it."""
    for config in configs:
        noise = np.random.default_rng(int(config.hash, 16)).normal(0, 0.01)
        for step, budget in zip(config.snapshot_steps, config.snapshots, strict=True):
            samples = step * config.batch_size
            loss = (0.3 + 10 / config.params**0.4 + 30 / samples**0.4) * np.exp(noise)
            append_run(
                place.log,
                run_id=config.run_id,
                agent=config.agent,
                task=config.task,
                seed=config.seed,
                params=config.params,
                samples=samples,
                flops=samples * config.flops_per_sample,
                budget=budget,
                loss=loss,
                mean_return=50 / loss,
                return_se=1.0,
                episodes=50,
                protocol=config.protocol,
                time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            )
    return SweepResult(rows=sum(len(c.snapshots) for c in configs), failed=())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepared: list[tuple[int, int]] = []

    def prepare(data: Path, games: int, held_out: int, **_: object) -> None:
        prepared.append((games, held_out))

    monkeypatch.setattr(study_module, "prepare_demonstrations", prepare)
    monkeypatch.setattr(study_module, "open_bench", lambda task, data: BENCH)
    monkeypatch.setattr(study_module, "run_sweep", _sweep)
    (tmp_path / "study.toml").write_text(SMALL)
    return tmp_path


def test_a_study_forecasts_first_trains_after_and_repeats_nothing(folder: Path) -> None:
    said: list[str] = []
    run = partial(run_study, folder, workers=2, say=said.append)
    assert run(stop_before="training") is None
    made = Forecast.load(folder / "forecast.json")
    ladder = load_runs(folder / "runs.csv")
    plan = read_plan(folder / "plan_forecast.csv")
    assert ladder["flops"].max() < 1.05e9
    assert set(plan["forecast_hash"]) == {made.hash}
    assert any(made.hash in line for line in said)
    assert any("hours" in line and "epochs" in line and "GB" in line for line in said)

    verification = run()
    assert verification is not None
    verdict = verification.runs
    assert set(verdict["run_id"]) == set(plan["run_id"])
    assert (verdict["status"] == "ok").all()
    runs = load_runs(folder / "runs.csv")
    assert len(runs) == len(ladder) + len(plan)
    assert (runs["time_utc"].tail(len(plan)) >= made.time_utc).all()
    for product in ("verification.json", "report.html", "report.pdf"):
        assert (folder / product).stat().st_size > 1000, product

    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}
    run()
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"episodes.parquet"}


def test_a_changed_ladder_is_planned_again(folder: Path) -> None:
    run_study(folder, workers=2, say=lambda line: None, stop_before="forecast")
    before = read_plan(folder / "plan.csv")
    (folder / "study.toml").write_text(SMALL.replace("seeds = 2", "seeds = 3"))
    run_study(folder, workers=2, say=lambda line: None, stop_before="forecast")
    after = read_plan(folder / "plan.csv")
    assert len(after) == len(before) * 3 / 2
    assert len(json.loads((folder / "stages.json").read_text())) == 1


def test_known_ends_of_the_return_bound_the_link(folder: Path) -> None:
    text = SMALL + "return_floor = 5\nreturn_ceiling = 400.0\n"
    (folder / "study.toml").write_text(text)
    run_study(folder, workers=2, say=lambda line: None, stop_before="training")
    made = Forecast.load(folder / "forecast.json")
    assert made.ensemble.link is not None
    link = made.ensemble.link.fit
    assert (link.floor, link.ceiling) == (5, 400)
    assert float(link.predict(1e-9)) < 400


def test_a_forecast_whose_runs_have_begun_is_not_made_again(folder: Path) -> None:
    run = partial(run_study, folder, workers=2, say=lambda line: None, stop_before="training")
    run()
    path = folder / "forecast.json"
    made = path.read_bytes()
    log = folder / "runs.csv"
    head, *rows = log.read_text().splitlines()  # a column that rows to come bring with them
    log.write_text("\n".join([f"{head},data_seconds", *(f"{row}," for row in rows), ""]))
    run()
    assert path.read_bytes() == made

    (folder / "study.toml").write_text(SMALL.replace("resamples = 100", "resamples = 90"))
    planned = read_plan(folder / "plan_forecast.csv")["run_id"].iloc[0]
    (folder / "files" / planned).mkdir(parents=True)
    with pytest.raises(TrainError, match="is not made again"):
        run()
    assert path.read_bytes() == made
    (folder / "files" / planned).rmdir()
    run()
    assert path.read_bytes() != made


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was given to `write_report`, which is tested elsewhere and takes its time."""
    given: list[Any] = []

    def write(source: Any, folder: Path, **_: Any) -> None:
        given.append(source)
        (folder / "report.html").write_text("report")

    monkeypatch.setattr(study_module, "write_report", write)
    return given


@pytest.mark.usefixtures("reported")
def test_the_naive_size_is_trained_beside_the_forecast(folder: Path) -> None:
    naive = SMALL.replace("spread = [0.5, 1, 2]", "spread = [0.5, 1, 1.4]") + "naive = true\n"
    (folder / "study.toml").write_text(naive)
    said: list[str] = []
    verification = run_study(folder, workers=2, say=said.append)
    assert verification is not None
    largest = read_plan(folder / "plan.csv")["params"].max()
    plan = read_plan(folder / "plan_forecast.csv")
    assert (plan["params"] == largest).sum() == 1
    made = Forecast.load(folder / "forecast.json")
    assert set(plan["forecast_hash"]) == {made.hash}
    assert set(verification.runs["run_id"]) == set(plan["run_id"])
    beside = pd.read_csv(folder / "side_by_side.csv")
    assert beside["choice"].tolist() == ["forecast", "naive"]
    runs = load_runs(folder / "runs.csv")
    naive_run = runs[runs["run_id"] == plan.loc[plan["params"] == largest, "run_id"].iloc[0]]
    assert beside["mean_return"][1] == pytest.approx(naive_run["mean_return"].iloc[0])
    assert beside["loss"][0] < beside["loss"][1]
    assert any(line.startswith("at 2e+09 FLOP: forecast N = ") for line in said)
    hash_said = next(i for i, line in enumerate(said) if f"forecast {made.hash}" in line)
    assert hash_said < next(i for i, line in enumerate(said) if line.startswith("at 2e+09"))


@pytest.mark.usefixtures("reported")
def test_a_finished_study_keeps_its_forecast_where_a_naive_run_is_asked_for(folder: Path) -> None:
    run_study(folder, workers=2, say=lambda line: None)
    before = (folder / "forecast.json").read_bytes()
    (folder / "study.toml").write_text(SMALL + "naive = true\n")
    run_study(folder, workers=2, say=lambda line: None)
    assert (folder / "forecast.json").read_bytes() == before
    assert len(pd.read_csv(folder / "side_by_side.csv")) == 2


def test_a_forecast_larger_than_the_data_asks_for_a_setting(folder: Path) -> None:
    few = SMALL + "max_epochs = 1\n"
    (folder / "study.toml").write_text(few)
    with pytest.raises(
        PlanError, match=r"larger than the data.*set forecast\.max_epochs = [0-9.]+"
    ):
        run_study(folder, workers=2, say=lambda line: None)
    assert (folder / "plan_forecast.csv").exists()


def test_several_families_have_a_forecast_each(folder: Path, reported: list[Any]) -> None:
    both = SMALL.replace('task = "markov"', 'task = "markov"\nagent = ["lstm", "feedforward"]')
    (folder / "study.toml").write_text(both)
    verification = run_study(folder, workers=2, say=lambda line: None)
    assert verification is not None
    for agent in ("lstm", "feedforward"):
        assert set(load_runs(folder / agent / "runs.csv")["agent"]) == {agent}
        assert Forecast.load(folder / agent / "forecast.json").agent == agent
    alone = [folder / agent for agent in ("lstm", "feedforward")]
    assert reported == [*alone, dict(zip(("lstm", "feedforward"), alone, strict=True))]
    assert not (folder / "forecast.json").exists()


def test_a_rehearsal_says_what_a_study_takes_before_anything_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("nle")
    text = SMALL.replace("markov-1", "nethack-monk").replace('"markov"', '"nethack"')
    text = text.replace("[300, 8e3]", "[2e3, 2e4]").replace("[3e7, 1e9]", "[1e9, 3e10]")
    (tmp_path / "study.toml").write_text(text.replace('name = "small"', 'name = "s"\ngames = 9'))
    said: list[str] = []
    assert run_study(tmp_path, say=said.append, rehearse=True) is None
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]
    assert said[0].startswith("29,970 transitions to train on, about 0.009 GB")
    assert "memory_gb" in said[1]
    for word in (
        "runs of",
        "hours on",
        "epochs",
        "GB of memory",
        "GB of checkpoints",
        "GB of disk",
    ):
        assert word in said[2]


TABLES = """
[ladder]
flops = [1e8, 1e9]
params = [2e3, 4e3]
[forecast]
flops = [2e9]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "study.toml: "),
        (SMALL.replace("name", "nome"), "nome is not a setting of a study; known: agent"),
        (SMALL.replace("spread", "spreed"), r"forecast\.spreed is not a setting"),
        (SMALL.replace("params", "#params"), r"ladder\.params is missing"),
        (SMALL.replace('name = "small"', ""), "name is missing"),
        (SMALL.replace('name = "small"', 'name = "s"\nagent = "gru"'), "agent 'gru' is not known"),
        ('name = "s"\nladder = 3\n', "ladder = 3 is not a table"),
        ('name = "s"\ngames = "many"\n' + TABLES, 'games = "many" is not a whole number'),
        ('name = "s"\ngames = true\n' + TABLES, "games = true is not a whole number"),
        ('name = "s"\ngames = 0\n' + TABLES, "games holds 0, which is below what it takes"),
        ('name = "s"\nevaluation_games = [1, 5]\n' + TABLES, "evaluation_games holds 1"),
        ('name = "s"\nagent = 3\n' + TABLES, "agent = 3 is not a text or a list of one or more"),
        (
            'name = "s"\n' + TABLES.replace("[1e8, 1e9]", "1e9"),
            r"ladder\.flops = .* is not a list of 2, each a num",
        ),
        (
            'name = "s"\n' + TABLES.replace("[1e8, 1e9]", "[1e8, inf]"),
            r"ladder\.flops = .* is not a list of 2",
        ),
        (
            'name = "s"\n' + TABLES.replace("[2e9]", "[-2e9]"),
            r"forecast\.flops holds -2e\+09, which is below",
        ),
        (
            'name = "s"\n' + TABLES + 'naive = "yes"\n',
            'forecast.naive = "yes" is not true or false',
        ),
    ],
)
def test_a_bad_study_file_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "study.toml").write_text(text)
    with pytest.raises(TrainError, match=message):
        Study.load(folder)


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="--preset quick"):
        Study.load(tmp_path)
    with pytest.raises(TrainError, match="unknown preset 'slow'; there is quick, gpu"):
        write_preset(tmp_path, "slow")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_studies(tmp_path: Path, preset: str) -> None:
    write_preset(tmp_path, preset)
    assert Study.load(tmp_path).name == preset
    (tmp_path / "study.toml").write_text(SMALL)
    write_preset(tmp_path, preset)
    assert Study.load(tmp_path).name == "small"


def test_the_gpu_preset_is_of_the_size_that_it_promises(tmp_path: Path) -> None:
    write_preset(tmp_path, "gpu", ["screen-lstm", "lstm"])
    study = Study.load(tmp_path)
    assert study.agents == ("screen-lstm", "lstm")
    ladder, target = study.ladder, study.forecast
    assert ladder.sizes >= 8
    assert ladder.params[1] >= 1e7
    assert ladder.flops[1] >= 1e15
    assert ladder.flops[1] / ladder.flops[0] >= 1e4
    assert ladder.seeds >= 2
    assert study.games * STEPS_A_GAME >= 2e7
    assert target.naive
    assert min(target.flops) > ladder.flops[1]
    with pytest.raises(TrainError, match="trains screen-lstm, lstm: change its `agent` there"):
        write_preset(tmp_path, "gpu", ["transformer"])


def test_a_preset_for_one_family_names_it(tmp_path: Path) -> None:
    write_preset(tmp_path, "quick", ["transformer"])
    assert Study.load(tmp_path).agent == "transformer"


def test_a_family_that_is_not_known_is_not_written_down(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="agent 'gru' is not known"):
        write_preset(tmp_path / "study", "quick", ["lstm", "gru"])
    assert not (tmp_path / "study").exists()


def test_damaged_stages_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"plan')
    with pytest.raises(TrainError, match=r"stages\.json: damaged .* no run is trained again"):
        Stages(tmp_path)


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*/study.toml")), ids=lambda p: p.parent.name)
def test_the_settings_of_kept_studies_can_be_read(path):
    assert Study.load(path.parent).name == path.parent.name
