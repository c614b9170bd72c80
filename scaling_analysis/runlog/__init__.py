"""The run log: schema, reading, writing, importing, audit."""

from scaling_analysis.runlog.reading import load_episodes, load_plan, load_runs
from scaling_analysis.runlog.selecting import content_hash, row_digests, row_keys, select, usable
from scaling_analysis.runlog.writing import append_run, write_runs

__all__ = [
    "append_run",
    "content_hash",
    "load_episodes",
    "load_plan",
    "load_runs",
    "row_digests",
    "row_keys",
    "select",
    "usable",
    "write_runs",
]
