"""Two moons: a posterior of two thin crescents, where a coarse density is seen at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.problems.rejection import collect, posterior_rows
from genopt.problems.stochastic import StochasticProblem
from genopt.space import Space

_RADIUS, _WIDTH, _SHIFT = 0.1, 0.01, 0.25
_PROPOSALS = 8192
_ANGLES, _AT_ONCE = 2048, 1024
_ROOT = math.sqrt(2.0)


class TwoMoons(StochasticProblem):
    """theta in the square from a noisy point y (the benchmark of simulation-based inference).

    y = (r cos a + .25, r sin a) + (-abs(theta1 + theta2), theta2 - theta1) / sqrt 2 with a uniform
    in (-pi/2, pi/2) and r ~ N(.1, .01^2). Prior: uniform in [-1, 1]^2. As the size of a sum forgets
    its sign, there are two crescents.
    """

    def __init__(self) -> None:
        super().__init__(
            "two_moons",
            Space.of(theta1=(-1.0, 1.0), theta2=(-1.0, 1.0)),
            Space.of(y1=(-1.2, 0.45), y2=(-1.6, 1.6)),
            # the noise alone moves y by up to .1
            {name: {"equals": 0.0, "tolerance": 0.12} for name in ("y1", "y2")},
            default_rows=10_000,
            description="Two crescents of parameters that explain one noisy point.",
            citation=(
                "Lueckmann, Boelts, Greenberg, Goncalves and Macke, Benchmarking simulation-based "
                "inference, AISTATS (2021), arXiv 2101.04653"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The expected point.

        Args:
            x: parameters (..., 2).

        Returns:
            Points (..., 2).
        """
        first, second = self.columns(x)
        middle = 2.0 / math.pi * _RADIUS + _SHIFT
        return torch.stack([middle - (first + second).abs() / _ROOT, (second - first) / _ROOT], -1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Independent draws from the prior.

        Args:
            n: number of parameters.
            seed: seed of the draw.

        Returns:
            Parameters (n, 2).
        """
        return sample_space(self.x_space, n, method="uniform", seed=seed)

    def respond(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The moved crescent.

        Args:
            x: parameters (..., 2).
            generator: source of the noise.

        Returns:
            Points (..., 2).
        """
        first, second = x.unbind(-1)
        place = torch.stack([-(first + second).abs(), second - first], -1) / _ROOT
        return _crescent(first.numel(), generator).reshape(place.shape) + place

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(theta | y).

        A point c of the crescent fixes abs(theta1 + theta2) = sqrt 2 (c1 - y1) and theta2 - theta1
        = sqrt 2 (y2 - c2); the map is a rotation, so both signs of the sum are equally likely, and
        what lies in the square is kept.

        Args:
            y: one point (2,), or several (C, 2).
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Parameters (n, 2), or (C, n, 2).

        Raises:
            GenoptError: if a point cannot be reached from the square.
        """

        def draw(row: Tensor, own_seed: int) -> Tensor:
            what = f"y = ({float(row[0]):g}, {float(row[1]):g})"
            return collect(lambda g: self._accepted(row, g), n, own_seed, what)

        rows = y.to(torch.float64)
        return posterior_rows(rows, self.y_space, n, 2, draw, seed)

    def _accepted(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """One round of rejection: the accepted parameters (M, 2), M random."""
        point = _crescent(_PROPOSALS, generator)
        size, difference = _ROOT * (point[:, 0] - y[0]), _ROOT * (y[1] - point[:, 1])
        coin = torch.rand(_PROPOSALS, dtype=torch.float64, generator=generator)
        total = torch.where(coin < 0.5, -size, size)
        theta = torch.stack([total - difference, total + difference], -1) / 2.0
        return theta[(size >= 0.0) & (theta.abs() <= 1.0).all(-1)]

    def log_posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log p(theta | y).

        The crescent has the density N(r; .1, .01^2) / (pi r) in the plane. What the square cuts off
        is an interval of r for each angle, integrated over the angle by the midpoint rule.

        Args:
            x: parameters (N, 2).
            y: points (N, 2) or (1, 2).

        Returns:
            Log densities (N,); -inf outside the square.

        Raises:
            GenoptError: if a shape does not fit.
        """
        x, y = self.check_pairs(x, y)
        # an observation that comes with many parameters is integrated once
        observed, owner = torch.unique(y, dim=0, return_inverse=True)
        inside = torch.cat([self._inside(part) for part in observed.split(_AT_ONCE)])[owner]
        across = y[:, 0] + (x[:, 0] + x[:, 1]).abs() / _ROOT - _SHIFT
        along = y[:, 1] - (x[:, 1] - x[:, 0]) / _ROOT
        radius = torch.hypot(across, along).clamp_min(1e-300)
        log_crescent = -0.5 * ((radius - _RADIUS) / _WIDTH).square() - (math.pi * radius).log()
        log_crescent = log_crescent - math.log(_WIDTH * math.sqrt(2.0 * math.pi))
        possible = (across >= 0.0) & (x.abs() <= 1.0).all(-1)
        return torch.where(possible, log_crescent - inside.log(), -torch.inf)

    def _inside(self, y: Tensor) -> Tensor:
        """Integral of the likelihood over the square (N,)."""
        angle = math.pi * ((torch.arange(_ANGLES, dtype=torch.float64) + 0.5) / _ANGLES - 0.5)
        cosine, sine = angle.cos(), angle.sin()
        # abs(theta1 + theta2) = sqrt 2 (r cos a + .25 - y1) is positive and, with the size of
        # theta2 - theta1 = sqrt 2 (y2 - r sin a), at most 2: linear conditions on r
        offset = _SHIFT - y[:, :1]
        low = (-offset / cosine).clamp_min(0.0)
        high = torch.full_like(low, torch.inf)
        for sign in (-1.0, 1.0):
            slope, start = cosine - sign * sine, offset + sign * y[:, 1:]
            edge = (_ROOT - start) / slope
            high = torch.where(slope > 0.0, torch.minimum(high, edge), high)
            low = torch.where(slope < 0.0, torch.maximum(low, edge), low)
        mass = [torch.special.ndtr((end - _RADIUS) / _WIDTH) for end in (low, high)]
        # the crescent is met twice, once for each sign of the sum
        return 2.0 * (mass[1] - mass[0]).clamp_min(0.0).mean(-1)


def _crescent(n: int, generator: torch.Generator) -> Tensor:
    """Points (n, 2) of the crescent at rest."""
    angle = math.pi * (torch.rand(n, dtype=torch.float64, generator=generator) - 0.5)
    radius = _RADIUS + _WIDTH * torch.randn(n, dtype=torch.float64, generator=generator)
    return torch.stack([radius * angle.cos() + _SHIFT, radius * angle.sin()], -1)
