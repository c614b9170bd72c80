"""The experiment data published with Tuyls et al., "Scaling Laws for Imitation Learning in
Single-Agent Games": a clone of the repository princeton-nlp/il-scaling-in-games.

Its folder `experiment_data` holds archives of `torch.save` named .tar:

* atari/eval_loss/eval_loss_<game>.tar, atari/eval_return/eval_return_<game>[_<seed>].tar and
  atari/flop_params_to_samples/flop_params_to_samples_<game>.tar: {budget "1e13": {params: value}};
* nethack/<sweep>_iso_flop/<run>/eval_loss_overlap_<k>_model_<budget>.tar: results of a checkpoint;
  eval_returns_model_<budget>.txt and eval_lens_model_<budget>.txt: one episode a line.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.importing.mapping import Imported, assemble, match_names
from scaling_analysis.runlog.importing.torch_archive import read_torch_archive
from scaling_analysis.runlog.tables import Table

_ATARI_AGENT = "bc-cnn"
_KEY = ("task", "budget", "params")


def import_il_scaling(
    source: str | PathLike[str],
    columns: Mapping[str, str] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read the Atari and NetHack results in a clone of princeton-nlp/il-scaling-in-games.

    Archives are read without torch by an unpickler that builds tensors and containers and refuses
    anything else. Atari: flops are the published, nominal ones (the audit looks at them); a row
    without a sample count has status "excluded". NetHack: the names inside the archives of a
    checkpoint are confirmed with `columns`, as for `import_csv`; an array of losses becomes its
    mean and standard error; the episodes come as a second table.

    Examples
    --------
    >>> imported = import_il_scaling("il-scaling-in-games")                 # doctest: +SKIP
    >>> print(imported.summary())                                           # doctest: +SKIP
    """
    folder = Path(source)
    data = folder / "experiment_data" if (folder / "experiment_data").is_dir() else folder
    atari, nethack = data / "atari", data / "nethack"
    if not atari.is_dir() and not nethack.is_dir():
        raise RunLogError(
            f"{folder}: neither experiment_data/atari nor experiment_data/nethack in it. Name a "
            "clone of princeton-nlp/il-scaling-in-games."
        )
    tables: list[Table] = []
    episodes: pd.DataFrame | None = None
    messages: list[str] = []
    mapping: dict[str, str] = {}
    if atari.is_dir():
        tables += [_atari(atari, messages)]
    if nethack.is_dir():
        table, episodes = _nethack(nethack, messages)
        if table is not None:
            # Names are settled here: those of the Atari tables are the schema's already.
            header = list(table.frame.columns)
            used, _ = match_names(table.name, header, columns or {}, constants or {}, cost_constant)
            mapping = {theirs: ours for ours, theirs in used.items()}
            tables.append(Table(table.name, table.frame.rename(columns=mapping), table.place))
            if episodes is not None:
                episodes = _with_samples(episodes, tables[-1].frame)
    if not tables:
        raise RunLogError(f"{data}: no result of an isoFLOP sweep in it.")
    imported = assemble(
        tables,
        constants=constants,
        cost_constant=cost_constant,
        episodes=episodes,
        messages=messages,
    )
    used = {ours: theirs for theirs, ours in mapping.items()} or imported.used
    return Imported(
        runs=imported.runs,
        episodes=episodes,
        used=used,
        unused=imported.unused,
        messages=imported.messages,
    )


def _atari(folder: Path, messages: list[str]) -> Table:
    results = {
        kind: [
            part
            for path in sorted((folder / kind).glob(f"{kind}_*.tar"))
            for part in _budget_table(path, kind)
        ]
        for kind in ("eval_loss", "eval_return", "flop_params_to_samples")
    }
    losses, returns, samples = (
        pd.DataFrame(rows, columns=pd.Index([*_KEY, "repeat", name]))
        for rows, name in zip(results.values(), ("loss", "mean_return", "samples"), strict=True)
    )
    frame = losses.merge(returns, on=[*_KEY, "repeat"], how="outer")
    frame = frame.merge(samples.drop(columns="repeat"), on=list(_KEY), how="left")
    if frame.empty:
        raise RunLogError(f"{folder}: no eval_loss or eval_return archive in it.")
    repeat = frame["repeat"].where(frame["repeat"] == "", "-seed" + frame["repeat"])
    unknown = frame["samples"].isna()
    frame["run_id"] = frame["task"] + "-" + frame["params"].map("{:.0f}".format) + repeat
    frame["agent"] = _ATARI_AGENT
    frame["flops"] = frame["budget"]
    frame["protocol"] = (frame["task"] + "Deterministic-v0/softmax").where(
        frame["mean_return"].notna(), ""
    )
    frame["status"] = np.where(unknown, "excluded", "ok")
    frame["note"] = np.where(unknown, "no sample count published", "")
    messages.append("Atari: flops are the nominal budgets, as published")
    if unknown.any():
        messages.append(f"Atari: {int(unknown.sum())} rows have no sample count: excluded")
    places = [
        f"{task}, budget {budget:g}, params {params:.0f}"
        for task, budget, params in frame[list(_KEY)].itertuples(index=False)
    ]
    return Table(str(folder), frame.drop(columns="repeat"), places.__getitem__)


def _budget_table(path: Path, kind: str) -> list[tuple[str, float, float, str, float]]:
    """(game, budget, params, repeat, value) of one archive {budget: {params: value}}."""
    game, _, repeat = path.stem.removeprefix(f"{kind}_").partition("_")
    content = read_torch_archive(path)
    try:
        return [
            (game, float(budget), float(params), repeat, float(value))
            for budget, row in content.items()
            for params, value in row.items()
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise RunLogError(
            f"{path}: expected {{budget: {{params: value}}}}, found something else ({error})."
        ) from error


def _nethack(folder: Path, messages: list[str]) -> tuple[Table | None, pd.DataFrame | None]:
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    episodes: list[pd.DataFrame] = []
    for sweep in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not sweep.name.endswith("iso_flop"):
            messages.append(f"NetHack: {sweep.name} is no isoFLOP sweep, not read")
            continue
        for path in sorted(sweep.glob("*/eval_loss_*_model_*.tar")):
            label = path.stem.rpartition("_model_")[2]
            row = {
                "run_id": path.parent.name,
                "agent": sweep.name.removesuffix("_iso_flop"),
                "task": "nethack",
                "budget": _budget(path, label),
                **_leaves(read_torch_archive(path)),
            }
            played = _episodes(path.parent, label)
            if played is not None:
                returns = played["return"]
                row |= {
                    "mean_return": returns.mean(),
                    "return_se": returns.std(ddof=1) / np.sqrt(len(returns)),
                    "episodes": len(returns),
                    "protocol": "NetHackChallenge-v0/published",
                }
                episodes.append(played.assign(run_id=row["run_id"], budget=row["budget"]))
            rows.append(row)
            places.append(path.name)
    if not rows:
        return None, None
    table = Table(str(folder), pd.DataFrame(rows), places.__getitem__)
    return table, pd.concat(episodes, ignore_index=True) if episodes else None


def _budget(path: Path, label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise RunLogError(f"{path}: {label!r} in its name is no budget.") from None


def _leaves(value: Any, name: str = "value") -> dict[str, Any]:
    """Numbers and strings of a nested result by their path; an array as its mean and error."""
    if isinstance(value, dict):
        prefix = "" if name == "value" else f"{name}."
        return {
            path: leaf
            for key, inner in value.items()
            for path, leaf in _leaves(inner, f"{prefix}{key}").items()
        }
    if isinstance(value, np.ndarray | list | tuple):
        try:
            values = np.asarray(value, dtype=float).ravel()
        except (TypeError, ValueError):
            return {}
        if len(values) < 2:
            return {name: float(values[0])} if len(values) else {}
        return {
            f"{name}.mean": float(values.mean()),
            f"{name}.se": float(values.std(ddof=1) / np.sqrt(len(values))),
        }
    return {name: value} if isinstance(value, int | float | str) else {}


def _episodes(run: Path, label: str) -> pd.DataFrame | None:
    returns, lengths = (run / f"eval_{kind}_model_{label}.txt" for kind in ("returns", "lens"))
    if not returns.exists():
        return None
    played = pd.DataFrame({"return": _numbers(returns)})
    if lengths.exists():
        length = _numbers(lengths)
        if len(length) != len(played):
            raise RunLogError(
                f"{lengths}: {len(length)} lengths for {len(played)} returns in {returns.name}."
            )
        played["length"] = length
    return played.rename_axis("episode").reset_index()


def _numbers(path: Path) -> list[float]:
    numbers = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            numbers.append(float(text))
        except ValueError:
            raise RunLogError(f"{path}, line {line}: {text[:40]!r} is not a number.") from None
    if not numbers:
        raise RunLogError(f"{path}: the file is empty. Delete it where nothing was played.")
    return numbers


def _with_samples(episodes: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    merged = episodes.merge(rows[["run_id", "budget", "samples"]], on=["run_id", "budget"])
    order = ["run_id", "samples", "budget", "episode", "return", "length"]
    return merged[[name for name in order if name in merged]]
