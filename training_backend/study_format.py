"""study.toml: what a study forecasts, trains and tests, and presets to start from."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from scaling_analysis import PlanError, TrainError
from training_backend.families import find_family
from training_backend.files import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The first sweep; see `scaling_analysis.plan_ladder`."""

    flops: tuple[float, float]
    """Smallest and largest budget [FLOP]."""
    params: tuple[float, float]
    """Smallest and largest size [count]."""
    budgets: int = 6
    sizes: int = 8
    sizes_per_budget: int = 5
    seeds: int = 3
    max_epochs: float = 2.0
    """Cells that go over the demonstrations more often are not planned."""
    centre: tuple[float, float] | None = None
    """(flops, params) of a point of the expected optimum, N_opt ~ C^(1/2) through it. Default: the
    middle of both ranges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is forecast, and the runs that test it."""

    flops: tuple[float, ...]
    """Budgets beyond the ladder [FLOP]."""
    spread: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Sizes to train, as factors on the forecast N_opt."""
    seeds: int = 2
    share: float = 1.0
    """Budgets whose N_opt lie within this factor share their runs."""
    games: int = 200
    """Evaluation games of a size at a budget; its agents share them."""
    level: float = 0.9
    resamples: int = 1000
    naive: bool = False
    """Whether the ladder's largest size is trained at the same compute, to be put beside the
    forecast's: the choice of who knows no scaling law and takes the largest agent at hand."""
    max_epochs: float | None = None
    """Most often that a run may go over the demonstrations; by default as often as in the ladder,
    or `costs.MAX_EPOCHS` times where that is more."""
    return_floor: float | None = None
    """Mean return of random actions, where it is known [points]; see `fit_return_link`."""
    return_ceiling: float | None = None
    """Mean return that agents do not exceed, such as the expert's [points]; see
    `fit_return_link`. Name one that is known before the ladder is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The content of `study.toml`."""

    name: str
    task: str = "nethack"
    agent: str | tuple[str, ...] = "lstm"
    """Family of the agents (`families.FAMILIES`), or several: each has a ladder and a forecast of
    its own, in a folder of its name."""
    protocol: str = "nethack-monk"
    demonstrations: str = ""
    """Folder of demonstrations made by `scaling-train collect`; empty: the study records its own,
    `games` and `held_out` of them."""
    games: int = 5000
    held_out: int = 160
    evaluation_games: tuple[int, int] = (200, 50)
    """Evaluation games of a size near the best one of its budget, and elsewhere; agents share."""
    averaging: float = 0.1
    """Mean age of the weights averaged in a snapshot, over the steps taken; 0: the last weights."""
    seed: int = 0
    """Seed of the forecast's replicates."""
    ladder: Ladder
    forecast: Target

    @property
    def agents(self) -> tuple[str, ...]:
        """The families, one or several."""
        return (self.agent,) if isinstance(self.agent, str) else self.agent

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `study.toml`.

        Raises:
            TrainError: there is none, or a name or value in it is not one of a study.
        """
        path = folder / "study.toml"
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TrainError(
                f"{path}: no such file; a study is a folder with a study.toml. "
                f"`scaling-train study {folder} --preset quick` writes a small one"
            ) from error
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise TrainError(f"{path}: {error}") from error
        checked = _checked(path, cls, values)
        ladder = _checked(path, Ladder, values.get("ladder", {}), "ladder.")
        target = _checked(path, Target, values.get("forecast", {}), "forecast.")
        study = cls(**checked | {"ladder": Ladder(**ladder), "forecast": Target(**target)})
        try:
            for agent in study.agents:
                find_family(agent)
        except PlanError as error:
            raise TrainError(f"{path}: {error}") from error
        return study


QUICK = """\
# A miniature of a study: every stage for real, in minutes on two cores. Too small to be believed.
name = "quick"
games = 120
held_out = 40
evaluation_games = [20, 10]

[ladder]
flops = [1e9, 1.6e10]
params = [2.5e3, 4e4]
budgets = 4
sizes = 6
sizes_per_budget = 4
seeds = 2
max_epochs = 20.0

[forecast]
flops = [5e10]
seeds = 2
games = 20
resamples = 300
"""
GPU = """\
# Behaviour cloning of the scripted expert at the size of one GPU: ten sizes from 12 thousand to 12
# million parameters over four decades of compute, and a test of the forecast four times beyond.
name = "gpu"
# one family, or several as ["lstm", "transformer"]: `--agent` of `scaling-train study` sets it
agent = "lstm"
# about 40 million transitions: below 16 epochs at every size of the ladder that is worth training
games = 12000
held_out = 200
evaluation_games = [400, 100]

[ladder]
flops = [1e11, 1e15]
params = [1.2e4, 1.2e7]
budgets = 9
sizes = 10
sizes_per_budget = 7
seeds = 2
max_epochs = 16.0
centre = [1e13, 1e5]

[forecast]
flops = [4e15]
spread = [0.5, 1, 2]
seeds = 2
games = 1000
resamples = 1000
# beside the forecast's agent one of the ladder's largest size, at the same compute
naive = true
max_epochs = 64.0
"""
PRESETS = {"quick": QUICK, "gpu": GPU}


def write_preset(folder: Path, preset: str, agents: Sequence[str] = ()) -> None:
    """Put a preset's `study.toml` into the folder, unless there is one.

    Args:
        folder: of the study.
        preset: its name.
        agents: families to train in place of the preset's.

    Raises:
        TrainError: there is no such preset, or the study there trains other families.
        PlanError: there is no such family.
    """
    if preset not in PRESETS:
        raise TrainError(f"unknown preset {preset!r}; there is {', '.join(PRESETS)}")
    for agent in agents:
        find_family(agent)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.toml"
    if not path.exists():
        text = PRESETS[preset]
        if agents:
            chosen = json.dumps(agents[0] if len(agents) == 1 else list(agents))
            kept = [line for line in text.splitlines() if not line.startswith("agent =")]
            at = next(i for i, line in enumerate(kept) if line.startswith("name ="))
            text = "\n".join([*kept[: at + 1], f"agent = {chosen}", *kept[at + 1 :]]) + "\n"
        write_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    elif agents and Study.load(folder).agents != tuple(agents):
        raise TrainError(
            f"{path} trains {', '.join(Study.load(folder).agents)}: change its `agent` there, or "
            "start another study"
        )


_ANY_NUMBER = ("forecast.return_floor", "forecast.return_ceiling")
_FROM_ZERO = ("seed", "averaging", "evaluation_games")
_TWO_OR_MORE = ("evaluation_games", "forecast.games")
"""Games of which a standard error is taken, where any are played."""


def _checked(path: Path, kind: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a table of study.toml, every name known and every value of its kind."""
    known = {f.name for f in fields(kind)}
    odd = sorted(set(values) - known)
    if odd:
        raise TrainError(
            f"{path}: {prefix}{odd[0]} is not a setting of a study; known: "
            f"{', '.join(sorted(known))}"
        )
    if kind is not Study and "flops" not in values:
        raise TrainError(f"{path}: {prefix}flops is missing: name the budgets [FLOP]")
    if kind is Ladder and "params" not in values:
        raise TrainError(f"{path}: ladder.params is missing: name the smallest and largest size")
    if kind is Study and "name" not in values:
        raise TrainError(f"{path}: name is missing: give the study a name")
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _is_of(value, hints[name]):
            raise TrainError(
                f"{path}: {prefix}{name} = {json.dumps(value, default=str)} is not "
                f"{_describe(hints[name])}"
            )
        least = 2 if prefix + name in _TWO_OR_MORE else 0
        numbers = [v for v in (value if isinstance(value, list) else [value]) if _is_number(v)]
        too_small = [v for v in numbers if (v < least if v else name not in _FROM_ZERO)]
        if too_small and prefix + name not in _ANY_NUMBER:
            raise TrainError(
                f"{path}: {prefix}{name} holds {too_small[0]:g}, which is below what it takes"
            )
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value of TOML is one of a setting's type."""
    parts = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_of(value, part) for part in parts)
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or not value:
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_is_of, value, kinds))
    if kind is float:
        return _is_number(value) and math.isfinite(value)
    if kind is int:
        return _is_number(value) and isinstance(value, int)
    return isinstance(value, Mapping if is_dataclass(kind) else kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _describe(kind: Any) -> str:
    """What a setting takes, in words."""
    parts = get_args(kind)
    if get_origin(kind) is UnionType:
        return " or ".join(_describe(part) for part in parts if part is not NoneType)
    if get_origin(kind) is tuple:
        count = "one or more" if parts[-1] is Ellipsis else str(len(parts))
        return f"a list of {count}, each {_describe(parts[0])}"
    words = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    return words.get(kind, "a table")
