"""The head of return-conditioned agents: a distribution of returns, and actions given one.

Shapes: K bins of returns, A actions, Z inputs (what encoder and core say of a step), E numbers
that a bin is embedded in.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training_backend.embedding import embed

BINS: Final = 32
"""K. The highest bin holds the best thirty-second of the frames: fine enough to ask for more than
the best tenth of the games does, and 3 % of the frames still teach it."""
EMBEDDING: Final = 8
"""E: the bins are ordered, so few numbers tell them apart."""


class ReturnHead(nn.Module):
    """Expert-action inference (Lee et al. 2022, arXiv:2205.15241, section 3.4) after the core.

    Two distributions of an input z: P(r | z) over binned returns to go, and pi(a | z, r), plain
    cloning's linear head on inputs that the return scales and shifts one by one (FiLM, Perez et
    al. 2018, arXiv:1709.07871). A return that only entered a linear layer beside z would move the
    actions' frequencies and nothing else. At first scale and shift are zero, so training starts
    from plain cloning.

    An agent at play would draw a return of every step from P(r | z) exp(kappa v_r) and then an
    action of pi(a | z, r). The action's own distribution is the mixture of the pi with these
    weights, so it is computed instead: the same policy, and no random number but the action's.

    Parameters
    ----------
    inputs
        Z.
    actions
        A.
    """

    edges: Tensor
    """(K - 1,) int64: bin r holds the returns in [edges[r - 1], edges[r]) [points]."""
    tilt: Tensor
    """(K,) kappa v_r, what is added to log P(r | z) at play [nats]."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(BINS, EMBEDDING))
        self.modulate = nn.Linear(EMBEDDING, 2 * inputs, bias=False)
        self.returns = nn.Linear(inputs, BINS)
        self.actions = nn.Linear(inputs, actions)
        nn.init.zeros_(self.modulate.weight)
        # Without `set_returns` all returns are in the lowest bin, and play asks for none of them.
        no_edges = torch.full((BINS - 1,), torch.iinfo(torch.int64).max)
        self.register_buffer("edges", no_edges, persistent=False)
        self.register_buffer("tilt", torch.zeros(BINS), persistent=False)

    @staticmethod
    def count_params(inputs: float, actions: int) -> float:
        """Trainable parameters, for sizes that need not be integers."""
        return BINS * EMBEDDING + 2 * inputs * EMBEDDING + (inputs + 1) * (BINS + actions)

    def set_returns(self, edges: Sequence[float], values: Sequence[float], kappa: float) -> None:
        """Say what the bins mean: their borders and values [points], and the tilt at play.

        Fewer bins than K, where returns are so often equal that quantiles coincide, leave the
        highest ones empty; play never asks for these.

        Args:
            edges: increasing, (bins - 1,).
            values: increasing, (bins,).
            kappa: how much the best return counts more than the worst in log P [nats].
        """
        bins = len(values)
        if not 2 <= bins <= BINS or len(edges) != bins - 1:
            raise ValueError(f"{len(edges)} edges, {bins} values: want 1 edge less than 2-{BINS}")
        self.edges.fill_(torch.iinfo(torch.int64).max)
        self.edges[: bins - 1] = torch.tensor(edges)
        v = torch.tensor(values, dtype=torch.float64)
        self.tilt.fill_(-math.inf)
        self.tilt[:bins] = kappa * (v - v[0]) / (v[-1] - v[0])

    def bins(self, returns: Tensor) -> Tensor:
        """Bin of each return to go [points]: int64, of any shape."""
        return torch.bucketize(returns.long(), self.edges, right=True)

    def train_logits(self, z: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
        """What training compares with action and return of a step.

        Args:
            z: (..., Z).
            bins: (...) the step's own return, binned.

        Returns:
            Logits (..., A) of pi(a | z, r), and (..., K) of P(r | z).
        """
        scale, shift = self.modulate(embed(bins, self.embedding)).chunk(2, -1)
        return self.actions(z * (1 + scale) + shift), self.returns(z)

    def forward(self, z: Tensor) -> Tensor:
        """Logits (..., A) of the demonstrators' actions: the mixture over P(r | z), kappa = 0.

        It knows no return, as plain cloning's logits do, so their held-out losses can be compared.
        """
        return self._mix(z, F.log_softmax(self.returns(z), -1))

    def play(self, z: Tensor) -> Tensor:
        """Logits (..., A) of the agent at play: the mixture over P(r | z) exp(kappa v_r)."""
        return self._mix(z, F.log_softmax(self.returns(z) + self.tilt, -1))

    def _mix(self, z: Tensor, weights: Tensor) -> Tensor:
        """log sum_r weight_r pi(a | z, r); weights (..., K) in logs. One bin at a time: all at
        once would take K times the memory."""
        scales, shifts = self.modulate(self.embedding).chunk(2, -1)
        mixed = z.new_full((*z.shape[:-1], self.actions.out_features), -math.inf)
        for r in range(BINS):
            given = F.log_softmax(self.actions(z * (1 + scales[r]) + shifts[r]), -1)
            mixed = torch.logaddexp(mixed, given + weights[..., r : r + 1])
        return mixed
