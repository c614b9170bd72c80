"""A study: forecast first, train what it names after, and say whether it was right.

A study is a folder with a `study.toml` (`study_format`). The stages run in order, each leaves its
product there, and a stage whose product was made from the same inputs is skipped, so that the same
command goes on after a stop:

    demonstrations/       recordings and their decoded shards, where the study records its own
    plan.csv              the ladder
    runs.csv, episodes.parquet    the run log: the ladder, and after it the forecast runs
    forecast.json         made from the ladder alone, before a forecast run is planned
    plan_forecast.csv     the runs that test it
    side_by_side.csv      the forecast's agents beside those of the naive size, if asked for
    verification.json, report.html, report.pdf
    stages.json           hash of what each stage was made from

A study of several families has these products, but the demonstrations, in a folder a family, and a
report that compares them.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_analysis import (
    Forecast,
    TrainError,
    Verification,
    fit_return_link,
    forecast,
    load_episodes,
    load_runs,
    plan_forecast,
    plan_ladder,
    read_plan,
    verify,
    write_plan,
    write_report,
)
from training_backend.bench import open_bench
from training_backend.config import RunConfig
from training_backend.costs import MAX_EPOCHS, check_epochs, dry_run, open_splits
from training_backend.executors import Executor
from training_backend.families import find_family
from training_backend.files import write_file
from training_backend.jobs import Bench, Place
from training_backend.memory import device_here
from training_backend.naive import add_naive_runs, describe, put_side_by_side
from training_backend.preparing import prepare_demonstrations
from training_backend.rehearsal import planned_bench
from training_backend.sizing import size_for_params
from training_backend.stages import Stages
from training_backend.study_format import PRESETS, Ladder, Study, Target, write_preset
from training_backend.sweep import configure, run_sweep
from training_backend.tasks.fields import Demonstrations

__all__ = ["PRESETS", "Ladder", "Study", "Target", "run_study", "write_preset"]

BYTES_A_TRANSITION = 300
"""Disk that a decoded transition and its recording take, for the estimate [bytes]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """What a study is computed with; see `sweep.run_sweep`."""

    workers: int = 1
    device: str = "cpu"
    executor: Executor | None = None
    """What runs the jobs; it must be open. Processes of this machine by default."""
    stack: bool | None = None
    micro_batches: int = 1


def run_study(
    folder: Path,
    *,
    workers: int = 1,
    device: str = "cpu",
    executor: Executor | None = None,
    stack: bool | None = None,
    micro_batches: int = 1,
    say: Callable[[str], object] = print,
    stop_before: str = "",
    rehearse: bool = False,
) -> Verification | None:
    """Do what is left of a study.

    Args:
        folder: holds `study.toml`; the products go there.
        workers: processes.
        device: where to train, as PyTorch names it.
        executor, stack, micro_batches: as in `sweep.run_sweep`.
        say: takes lines that tell what is being done and what it will cost.
        stop_before: "forecast" or "training" ends the study before the forecast is made, or before
            its runs are trained, for instance to put the forecast on record first.
        rehearse: say what the study will be and cost, and stop: nothing is recorded or trained.

    Returns:
        The verdict (of a study of several families: the first one's); None where the study was
        stopped before it.

    Raises:
        TrainError: what stops a study; the stages that finished are kept.
    """
    if stop_before not in ("", "forecast", "training"):
        raise TrainError(f"stop_before={stop_before!r}: one of forecast, training")
    study = Study.load(folder)
    compute = Compute(
        workers=workers, device=device, executor=executor, stack=stack, micro_batches=micro_batches
    )
    # absolute: a cluster's machines have other working directories
    data = (Path(study.demonstrations or folder / "demonstrations")).absolute()
    if rehearse:
        bench = _planned_bench(study, data)
    else:
        if not study.demonstrations:
            say(f"recording {study.games + study.held_out} games into {data}")
            _record(study, data, workers, say)
        bench = open_bench(study.task, data)
    verdicts = []
    for agent in study.agents:
        home = folder if len(study.agents) == 1 else folder / agent
        if len(study.agents) > 1:
            say(f"-- {agent} --")
        of_agent = replace(study, agent=agent)
        verdicts.append(_run_family(of_agent, home, bench, compute, say, stop_before, rehearse))
    if len(verdicts) > 1 and all(verdicts):
        write_report({agent: folder / agent for agent in study.agents}, folder)
        say(f"all families: {folder / 'report.html'} and {folder / 'report.pdf'}")
    return verdicts[0]


def _record(study: Study, data: Path, workers: int, say: Callable[[str], object]) -> None:
    """Record and decode the study's own demonstrations, as each of its families sees them."""
    prepare_demonstrations(
        data,
        study.games,
        study.held_out,
        observations=list(dict.fromkeys(find_family(a).observation for a in study.agents)),
        workers=workers,
        say=say,
    )


def _planned_bench(study: Study, data: Path) -> Bench:
    """The bench, or one of demonstrations to come where none are recorded."""
    try:
        return open_bench(study.task, data)
    except TrainError:
        if study.demonstrations:
            raise
        return planned_bench(study.task, study.games)


def _run_family(
    study: Study,
    folder: Path,
    bench: Bench,
    compute: Compute,
    say: Callable[[str], object],
    stop_before: str,
    rehearse: bool,
) -> Verification | None:
    """The stages of one family, from its ladder to its report."""
    (agent,) = study.agents
    shards = bench.open_demonstrations(find_family(agent).observation)
    protocol = bench.protocol_id(study.protocol)
    say(
        f"{len(shards):,} transitions to train on, "
        f"about {len(shards) * BYTES_A_TRANSITION / 1e9:.2g} GB on disk"
    )
    if rehearse:
        plan = _ladder(study, agent, shards, protocol)
        _announce(
            study, configure(plan, bench, averaging=study.averaging), bench, folder, compute, say
        )
        return None

    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder)
    plan_path = stages.run(
        "plan.csv",
        [asdict(study.ladder), study.task, agent, protocol, len(shards)],
        lambda path: write_plan(_ladder(study, agent, shards, protocol), path),
    )
    ladder = configure(read_plan(plan_path), bench, averaging=study.averaging)
    place = Place(log=folder / "runs.csv", runs=folder / "files")
    _announce(study, ladder, bench, folder, compute, say)
    _sweep(ladder, bench, place, study.evaluation_games, compute, say)
    if stop_before == "forecast":
        return None

    first = [config.run_id for config in ladder]
    target = study.forecast
    # settings that came later count where they are used: a finished study keeps its products
    made_with = {k: v for k, v in asdict(target).items() if k not in ("naive", "max_epochs")}
    for name in ("return_floor", "return_ceiling"):
        if made_with[name] is None:
            del made_with[name]
    known = _rows(place.log, first)
    inputs = [known, made_with, study.seed]
    if not stages.has("forecast.json", inputs):
        _refuse_another(folder, place)
    forecast_path = stages.run(
        "forecast.json",
        inputs,
        lambda path: forecast(
            known,
            target.flops,
            link=partial(fit_return_link, floor=target.return_floor, ceiling=target.return_ceiling),
            level=target.level,
            n_resamples=target.resamples,
            rng=study.seed,
        ).save(path),
    )
    made = Forecast.load(forecast_path)
    say(f"forecast {made.hash}, written to {forecast_path}\n{made.summary()}")
    largest = float(read_plan(plan_path)["params"].max())
    second_path = stages.run(
        "plan_forecast.csv",
        [made.hash, made_with, protocol, len(shards), *([largest] if target.naive else [])],
        lambda path: write_plan(_test_plan(made, target, largest, len(shards), protocol), path),
    )
    plan = read_plan(second_path)
    second = configure(plan, bench, averaging=study.averaging)
    check_epochs(
        second,
        {data: len(split) for data, split in open_splits(second, bench).items()},
        target.max_epochs or max(study.ladder.max_epochs, MAX_EPOCHS),
        remedy="set forecast.max_epochs = {epochs} in study.toml",
    )
    if stop_before == "training":
        return None
    _sweep(second, bench, place, (target.games, target.games), compute, say)

    runs = load_runs(place.log)
    verification = verify(made, plan, runs)
    stages.run("verification.json", [made.hash, runs], verification.save)
    say(verification.summary())
    if target.naive:
        beside = put_side_by_side(made, plan, runs, largest)
        stages.run(
            "side_by_side.csv",
            [made.hash, runs],
            lambda path: write_file(path, lambda part: beside.to_csv(part, index=False)),
        )
        say(describe(beside))
    episodes = folder / "episodes.parquet"
    stages.run(
        "report.html",
        [made.hash, runs, verification.to_dict()],
        lambda path: write_report(
            folder, folder, episodes=load_episodes(episodes) if episodes.exists() else None
        ),
    )
    say(f"report: {folder / 'report.html'} and {folder / 'report.pdf'}")
    return verification


def _refuse_another(folder: Path, place: Place) -> None:
    """Stop where the runs that test the forecast on file have begun: it is not replaced then."""
    planned = folder / "plan_forecast.csv"
    if not ((folder / "forecast.json").exists() and planned.exists()):
        return
    begun = [run for run in read_plan(planned)["run_id"].unique() if (place.runs / run).exists()]
    if begun:
        raise TrainError(
            f"{folder / 'forecast.json'}: rows of the ladder or settings of the forecast were "
            f"changed after it was made, and {len(begun)} of the runs that test it have begun "
            f"({begun[0]} first): it is not made again. Restore what was changed, or test another "
            "forecast in another folder"
        )


def _test_plan(
    made: Forecast, target: Target, largest: float, transitions: int, protocol: str
) -> pd.DataFrame:
    """The runs that test a forecast, those of the naive size too where they are asked for."""
    plan = plan_forecast(
        made,
        target.flops,
        spread=target.spread,
        seeds=target.seeds,
        share=target.share,
        unique_samples=transitions,
        protocol=protocol,
    )
    return add_naive_runs(plan, largest) if target.naive else plan


def _ladder(study: Study, agent: str, shards: Demonstrations, protocol: str) -> pd.DataFrame:
    wanted = study.ladder

    def cost(params: Any) -> list[float]:
        return [
            size_for_params(shards.fields, shards.actions, float(n), agent).flops_per_sample
            for n in params
        ]

    def expected(flops: Any) -> Any:
        at, size = wanted.centre or (1.0, 1.0)
        return size * (flops / at) ** 0.5

    return plan_ladder(
        wanted.flops,
        wanted.params,
        task=study.task,
        agent=agent,
        seeds=wanted.seeds,
        budgets=wanted.budgets,
        sizes=wanted.sizes,
        sizes_per_budget=wanted.sizes_per_budget,
        cost=cost,
        unique_samples=len(shards),
        max_epochs=wanted.max_epochs,
        centre=expected if wanted.centre else None,
        protocol=protocol,
    )


def _announce(
    study: Study,
    ladder: Sequence[RunConfig],
    bench: Bench,
    folder: Path,
    compute: Compute,
    say: Callable[[str], object],
) -> None:
    """Say what the study will take before anything is spent."""
    device = device_here(compute.device)
    table = dry_run(ladder, bench, device=device, micro_batches=compute.micro_batches)
    say(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    target = study.forecast
    spent = sum(c.samples * c.flops_per_sample for c in ladder)
    # on one card jobs take turns
    side_by_side = 1 if device.startswith("cuda") else compute.workers
    hours = table["hours"].sum() / side_by_side
    rate = spent / max(table["hours"].sum(), 1e-9)
    sizes = len(target.spread) + target.naive
    after = sizes * target.seeds * sum(target.flops)
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    say(
        f"ladder: {len(ladder)} runs of {table['params'].nunique()} sizes up to "
        f"{table['params'].max():,} parameters, {spent:.3g} FLOP, about {hours:.2g} hours on "
        f"{side_by_side} processes at the speed of one on this machine's {device}, up to "
        f"{table['epochs'].max():.2g} epochs, up to {table['memory_gb'].max():.2g} GB of memory a "
        f"run, {table['disk_gb'].sum():.2g} GB of checkpoints; forecast runs: {sizes} sizes, "
        f"{target.seeds} seeds, {after:.3g} FLOP up to {max(target.flops):g} a run, about "
        f"{after / rate / side_by_side:.2g} hours at the same speed; evaluation games come on "
        f"top; {free:.0f} GB of disk are free"
    )


def _sweep(
    configs: Sequence[RunConfig],
    bench: Bench,
    place: Place,
    games: tuple[int, int],
    compute: Compute,
    say: Callable[[str], object],
) -> None:
    result = run_sweep(
        configs,
        bench,
        place,
        workers=compute.workers,
        executor=compute.executor,
        games=games,
        device=compute.device,
        stack=compute.stack,
        micro_batches=compute.micro_batches,
    )
    say(result.summary())
    if result.failed:
        raise TrainError(
            "some runs failed; what has finished is kept: mend the cause and start the study again"
        )


def _rows(log: Path, run_ids: Sequence[str]) -> pd.DataFrame:
    runs = load_runs(log)
    return runs[runs["run_id"].isin(run_ids)].reset_index(drop=True)
