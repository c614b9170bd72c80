"""Return-conditioned cloning: actions given the return that followed, and how likely returns are.

After Lee et al. 2022 (Multi-Game Decision Transformers, arXiv:2205.15241): training predicts the
binned return to go of each step, and its action given that return. At play, good returns are asked
for by tilting the predicted distribution, P(r | z) exp(kappa v_r), with v from 0 (lowest) to 1
(highest return): not the best return imaginable, but the best of those that are likely from here.

The return enters after the core (`heads.ReturnHead`), so the memory is that of plain cloning and
no return of a step can reach the prediction of another. The loop is
`behaviour_cloning.train`; this file holds what differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from scaling_analysis import PlanError
from training_backend.heads import BINS, ReturnHead
from training_backend.models import Agent, State
from training_backend.tasks.fields import ScoredDemonstrations

KAPPA: Final = 10.0
"""Tilt at play of Lee et al. 2022 [nats]: the highest return counts e^10 times the lowest."""
RETURN_WEIGHT: Final = 0.01
"""Weight of the return's cross-entropy. What a game will still score is hardly known, so the
gradient of this term is noise to the core: with weight 1 the loss of a 32k agent is 35 % above that
of a plain clone, with .1 it is 7 % above, with .01 it is the same
(`benchmarks/results/objectives.md`). The return's own head takes no notice: Adam divides by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Returns to go in bins that hold about as many frames each.

    NetHack's scores are heavy-tailed: bins of equal width would put nine tenths of the frames into
    a few of them. Quantiles make every bin equally well trained, and the values keep the points.
    """

    edges: tuple[int, ...]
    """Lowest return of each bin but the first [points], increasing."""
    values: tuple[float, ...]
    """Mean return of the frames in each bin [points], increasing."""


def make_bins(returns: NDArray[np.integer]) -> Bins:
    """Bins at the quantiles k / BINS of the returns to go of all training frames, (frames,).

    Equal quantiles (many frames with nothing more to come) give one bin.

    Raises:
        PlanError: all returns are equal, so nothing can be asked for.
    """
    quantiles = np.quantile(returns, np.arange(1, BINS) / BINS, method="higher")
    edges = np.unique(quantiles[quantiles > returns.min()])
    if not edges.size:
        raise PlanError(
            f"every frame's return to go is {returns.min()} points: nothing tells good games from "
            "bad ones; choose an agent that clones all games"
        )
    bins = np.searchsorted(edges, returns, side="right")
    values = np.bincount(bins, weights=returns) / np.bincount(bins)
    return Bins(edges=tuple(int(e) for e in edges), values=tuple(float(v) for v in values))


@lru_cache(maxsize=4)
def bins_of(demonstrations: ScoredDemonstrations) -> Bins:
    """`make_bins` of a training split, worked out once for all runs of a plan."""
    return make_bins(demonstrations.returns_to_go())


def measure_loss(agent: Agent, chunk: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
    """-log pi(a | z, r) - w log P(r | z), mean over a chunk (T, B) [nats/action], and the memory.

    Args:
        chunk: the fields, `action`, `reset` and `to_go` [points], each (T, B, ...).
    """
    head = return_head(agent)
    z, state = agent.remember(chunk, state, agent.resets_of(chunk))
    bins = head.bins(chunk["to_go"])
    actions, returns = head.train_logits(z, bins)
    of_action = F.cross_entropy(actions.flatten(0, 1), chunk["action"].flatten().long())
    of_return = F.cross_entropy(returns.flatten(0, 1), bins.flatten())
    return of_action + RETURN_WEIGHT * of_return, state


def frame_losses(
    agent: Agent, chunk: Mapping[str, Tensor], state: State
) -> tuple[dict[str, Tensor], State]:
    """Losses of every frame of a chunk (T, B), by their column in the run log, and the memory.

    `loss` is that of the demonstrators' policy as the agent knows it, the mixture over returns,
    -log sum_r P(r | z) pi(a | z, r): a policy that sees what a plain clone sees, so the two can be
    compared. The parts that are trained stand beside it: `loss_given_return`, which no policy can
    have since the return is not known before the end, and `loss_return`.
    """
    head = return_head(agent)
    z, state = agent.remember(chunk, state, chunk["reset"])
    action = chunk["action"].long()
    losses = {"loss": F.cross_entropy(head(z).movedim(-1, 1), action, reduction="none")}
    if "to_go" in chunk:
        bins = head.bins(chunk["to_go"])
        actions, returns = head.train_logits(z, bins)
        losses["loss_given_return"] = F.cross_entropy(
            actions.movedim(-1, 1), action, reduction="none"
        )
        losses["loss_return"] = F.cross_entropy(returns.movedim(-1, 1), bins, reduction="none")
    return losses, state


def return_head(agent: Agent) -> ReturnHead:
    """The head of an agent of a "returns" family."""
    if not isinstance(agent.head, ReturnHead):
        raise TypeError(f"agent {agent.family.name!r} has no head for returns")
    return agent.head
