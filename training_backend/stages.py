"""Stages of a study: a product is made again only where its inputs have changed."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_analysis import TrainError
from training_backend.files import write_json


@dataclass(slots=True)
class Stages:
    """Which product was made from which inputs."""

    folder: Path
    made: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.folder / "stages.json"
        if not path.exists():
            return
        try:
            self.made = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainError(
                f"{path}: damaged ({error}). Restore it, or delete it: then what was made is made "
                "again, but no run is trained again"
            ) from error

    def run(self, product: str, inputs: Sequence[Any], make: Callable[[Path], object]) -> Path:
        """The product's path; `make` is called unless it was made from the same inputs."""
        path = self.folder / product
        if not self.has(product, inputs):
            make(path)
            self.made[product] = _key(inputs)
            write_json(self.folder / "stages.json", self.made)
        return path

    def has(self, product: str, inputs: Sequence[Any]) -> bool:
        """Whether the product is there and was made from these inputs."""
        return (self.folder / product).exists() and self.made.get(product) == _key(inputs)


def _key(inputs: Sequence[Any]) -> str:
    text = json.dumps([_content(each) for each in inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(value: Any) -> Any:
    """What stands for an input in a hash.

    Columns without a value say nothing: a log gets more of them as rows of other runs are added.
    """
    if isinstance(value, pd.DataFrame):
        value = value.dropna(axis="columns", how="all")
        return hashlib.sha256(value.to_csv(index=False).encode()).hexdigest()
    return value
