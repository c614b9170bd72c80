"""Importers: from the files of other tools to a run log, with nothing guessed in silence."""

from scaling_analysis.runlog.importing.event_files import import_tensorboard
from scaling_analysis.runlog.importing.flat_files import import_csv, import_jsonl
from scaling_analysis.runlog.importing.il_scaling import import_il_scaling
from scaling_analysis.runlog.importing.mapping import Imported
from scaling_analysis.runlog.importing.wandb_files import import_wandb

__all__ = [
    "Imported",
    "import_csv",
    "import_il_scaling",
    "import_jsonl",
    "import_tensorboard",
    "import_wandb",
]
