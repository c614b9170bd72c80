"""Makes `markov_source` importable, here and in the worker processes of a sweep."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest


@pytest.fixture(scope="session")
def recorded_games(tmp_path_factory):
    """Four recorded games of the expert, three of them with 1,000 keys or more."""
    from training_backend.demonstrations import open_index
    from training_backend.recording import collect

    root = tmp_path_factory.mktemp("recorded_games")
    collect(root, 4, 4_950_000, workers=1, max_steps=1_100)
    return open_index(root)
