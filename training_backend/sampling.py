"""Random choices of agents at play, drawn from a game's seed and step alone."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_GOLDEN: Final = 0x9E3779B97F4A7C15


def uniforms(
    seeds: NDArray[np.uint64], steps: NDArray[np.int64], sampling_seed: int
) -> NDArray[np.float64]:
    """Numbers in [0, 1), (games,), that depend on a game's seed and step alone.

    Two rounds of the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over the three numbers.
    """
    return draw(random_streams(seeds, sampling_seed), steps)


def random_streams(seeds: NDArray[np.uint64], sampling_seed: int) -> NDArray[np.uint64]:
    """What `draw` needs to know of games' seeds, (games,)."""
    with np.errstate(over="ignore"):
        return _mix(seeds + np.uint64(sampling_seed) * np.uint64(_GOLDEN))


def draw(streams: NDArray[np.uint64], steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The numbers of `uniforms` at these steps."""
    mixed = _mix(streams + (steps.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def sample(
    logits: NDArray[np.float32], draws: NDArray[np.float64], temperature: float
) -> NDArray[np.uint8]:
    """Actions (games,) from softmax(logits / temperature), logits (games, actions)."""
    scaled = logits - logits.max(axis=1, keepdims=True)
    if temperature != 1:
        scaled /= np.float32(temperature)
    total = np.cumsum(np.exp(scaled, out=scaled), axis=1)
    chosen = (total <= (draws * total[:, -1])[:, None]).sum(axis=1)
    return np.minimum(chosen, logits.shape[1] - 1).astype(np.uint8)
