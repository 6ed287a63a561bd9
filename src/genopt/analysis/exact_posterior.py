"""A model beside the exact posterior, for problems that know theirs.

The Kullback-Leibler divergence from the exact posterior is zero only for the right density, and
unlike a classifier's accuracy it does not saturate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.analysis.conditional_draws import Density, conditional_draws, log_densities
from genopt.analysis.two_sample import c2st
from genopt.errors import GenoptError
from genopt.problems.stochastic import StochasticProblem


@dataclass(frozen=True)
class ExactComparison:
    """Distances to the exact posterior by observation.

    Args:
        kl: divergence from the exact posterior in nats (C,), estimated from exact draws; infinite
            where the model gives one of them no density.
        c2st: accuracy of a classifier for the first observations; empty if none was asked for.
        outside: share of the model's draws outside the bounds.
    """

    kl: Tensor
    c2st: Tensor
    outside: float

    def summary(self) -> dict[str, float]:
        """Plain numbers, means over the observations.

        Returns:
            ``kl``, ``outside`` and, where it was asked for, ``c2st``.
        """
        scores = {"kl": float(self.kl.mean()), "outside": self.outside}
        return scores | ({"c2st": float(self.c2st.mean())} if len(self.c2st) else {})


def compare_with_exact(
    model: Density,
    problem: StochasticProblem,
    y: Tensor,
    draws: int = 1000,
    classified: int = 0,
    seed: int = 0,
) -> ExactComparison:
    """Divergence, classifier accuracy and bounds of a model's conditional densities.

    Args:
        model: whatever samples designs and knows their density.
        problem: what is asked; it knows its posterior.
        y: observations (C, K).
        draws: draws of each, exact and of the model.
        classified: for how many observations the classifier is trained, which takes seconds each.
        seed: seed of the draws.

    Returns:
        The comparison.

    Raises:
        GenoptError: if y is no matrix.
    """
    if y.ndim != 2 or not len(y):
        raise GenoptError(f"y has shape {tuple(y.shape)}; expected (C, {problem.y_space.dim})")
    dim = problem.x_space.dim
    exact = problem.posterior(y, draws, seed)
    truth = problem.log_posterior(exact.reshape(-1, dim), y.repeat_interleave(draws, 0))
    kl = (truth.reshape(len(y), draws) - log_densities(model, exact, y)).mean(-1)
    generator = torch.Generator().manual_seed(seed)
    found = conditional_draws(model, y, draws, generator, dim)
    accuracy = [
        c2st(a, b).accuracy for a, b in zip(exact[:classified], found[:classified], strict=True)
    ]
    inside = problem.x_space.contains(found).to(torch.float64).mean()
    return ExactComparison(kl, torch.tensor(accuracy, dtype=torch.float64), 1.0 - float(inside))
