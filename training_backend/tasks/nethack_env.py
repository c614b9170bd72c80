"""The one place where a NetHack game is made: the Challenge environment, seeded.

A game is determined by its seed and its keys: both random number generators of NetHack start from
the seed, reseeding is off, and the phase of the moon follows the seed instead of the date.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scaling_analysis.errors import TrainError

if TYPE_CHECKING:
    import numpy as np

ENVIRONMENT: Final = "NetHackChallenge-v0"
CHARACTER: Final = "mon-hum-neu-mal"
OBSERVATION_KEYS: Final = ("tty_chars", "tty_colors", "tty_cursor", "blstats")
"""`blstats` is for scores; neither expert nor agent sees it."""


def make_env(record_to: Path | None = None, max_steps: int = 1_000_000) -> Any:
    """A NetHack environment for `start_game`.

    Parameters
    ----------
    record_to
        Folder for ttyrec3 recordings and the xlogfile of every game; None records nothing.
    max_steps
        Environment steps after which NLE itself quits a game.

    Returns the `NetHackChallenge` environment itself, without the wrappers of `gymnasium.make`.
    Its observations are buffers that the next step overwrites. Raises `TrainError` where NLE is
    not installed.
    """
    try:
        import nle  # noqa: F401 (registers the environments)
        from nle.env.tasks import NetHackChallenge
    except ImportError as error:
        raise TrainError(
            "NetHack games need the package nle, which is not installed: "
            "pip install 'scaling-analysis[train]'"
        ) from error
    env = NetHackChallenge(
        character=CHARACTER,
        observation_keys=OBSERVATION_KEYS,
        save_ttyrec_every=0 if record_to is None else 1,
        savedir=None if record_to is None else str(record_to.resolve()),
        max_episode_steps=max_steps,
        fix_moon_phase=True,
    )
    # The Challenge hides its seeds behind functions that raise; below them seeding works as ever.
    for name in ("set_initial_seeds", "set_current_seeds", "get_current_seeds"):
        delattr(env.nethack, name)
    return env


def start_game(env: Any, seed: int) -> "dict[str, np.ndarray]":
    """Start the game of this seed (>= 0) and return its first observation."""
    env.nethack.set_initial_seeds(seed, seed, False)
    observation, _ = env.reset()
    return observation
