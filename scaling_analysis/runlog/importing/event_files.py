"""TensorBoard event files: each folder that holds some is a run."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import pandas as pd

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.importing.mapping import Imported, assemble, checkpoints
from scaling_analysis.runlog.tables import Table


def import_tensorboard(
    source: str | PathLike[str],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read the scalars of TensorBoard event files, one run a folder, one row a step.

    Columns are the tags, "step" and "wall_time" [s since 1970]; run_id is the folder. A tag written
    once in a run (a size) is taken for all its rows; steps without a result are left out; both are
    said in the messages. Where the step counts batches, map it and scale it:
    `columns={"samples": "step"}, scale={"samples": 4096}`. Needs the extra `import`.

    The other arguments are those of `import_csv`.

    Examples
    --------
    >>> imported = import_tensorboard(                                      # doctest: +SKIP
    ...     "logs", columns={"samples": "step", "loss": "eval/loss"}, scale={"samples": 4096},
    ...     cost_constant=6,
    ... )
    """
    folder = Path(source)
    runs = sorted({path.parent for path in folder.rglob("*tfevents*") if path.is_file()})
    if not runs:
        raise RunLogError(
            f"{folder}: no event file in it (a file with 'tfevents' in its name). CSV files from "
            "TensorBoard's page hold one curve and neither size nor samples: give the folder that "
            "TensorBoard was started on."
        )
    mapping = dict(columns or {})
    tables: list[Table] = []
    found: list[Table] = []
    messages: list[str] = []
    for run in runs:
        frame = _scalars(run)
        if frame.empty:
            messages.append(f"{run}: no scalar in its event files, left out")
            continue
        name = str(run.relative_to(folder)) if run != folder else run.name
        steps = [f"step {step}" for step in frame["step"]]
        table = Table(str(run), frame.assign(run_id=name), steps.__getitem__)
        tables.append(table)
        table, said = checkpoints(table, mapping)
        messages += said
        if table is not None:
            found.append(table)
    if not tables:
        raise RunLogError(f"{folder}: its event files hold no scalar.")
    return assemble(
        found or tables,  # where none has a result, the names are still to be confirmed
        columns=columns,
        scale=scale,
        constants=constants,
        cost_constant=cost_constant,
        messages=messages,
    )


def _scalars(run: Path) -> pd.DataFrame:
    """One row a step, one column a tag; of a step written twice the later value."""
    try:
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.util import tensor_util
    except ModuleNotFoundError as error:
        raise RunLogError(
            "reading event files needs tensorboard: pip install 'scaling-analysis[import]'."
        ) from error
    everything = {"scalars": 0, "tensors": 0}
    events = event_accumulator.EventAccumulator(str(run), size_guidance=everything).Reload()
    rows: dict[int, dict[str, float]] = {}
    tags = events.Tags()
    for tag in tags["scalars"]:
        for event in events.Scalars(tag):
            rows.setdefault(event.step, {}).update({"wall_time": event.wall_time, tag: event.value})
    for tag in tags["tensors"]:
        for event in events.Tensors(tag):
            value = tensor_util.make_ndarray(event.tensor_proto)
            if value.ndim == 0 and value.dtype.kind in "fiu":
                rows.setdefault(event.step, {}).update(
                    {"wall_time": event.wall_time, tag: float(value)}
                )
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_index()
    return frame.rename_axis("step").reset_index()
