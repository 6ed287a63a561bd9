"""Two widths: the same centre seen through a wide and a narrow Gaussian, which flows tend to blur.

The task is called Gaussian mixture in the benchmark of simulation-based inference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.errors import GenoptError
from genopt.problems.stochastic import StochasticProblem
from genopt.space import Space

_BOUND = 10.0
_WIDTHS = (1.0, 0.1)


class TwoWidths(StochasticProblem):
    """The centre theta of two Gaussians of widths 1 and .1 from one draw y of either.

    y ~ .5 N(theta, I) + .5 N(theta, .01 I). Prior: uniform in [-10, 10]^2.
    """

    def __init__(self) -> None:
        super().__init__(
            "two_widths",
            Space.of(theta1=(-_BOUND, _BOUND), theta2=(-_BOUND, _BOUND)),
            Space.of(y1=(-_BOUND - 5.0, _BOUND + 5.0), y2=(-_BOUND - 5.0, _BOUND + 5.0)),
            {name: {"equals": 0.0, "tolerance": 2.0} for name in ("y1", "y2")},
            default_rows=10_000,
            description="A centre seen once through a wide or a narrow Gaussian.",
            citation=(
                "Lueckmann, Boelts, Greenberg, Goncalves and Macke, Benchmarking simulation-based "
                "inference, AISTATS (2021), arXiv 2101.04653 (task Gaussian mixture)"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The expected point, which is the centre.

        Args:
            x: centres (..., 2).

        Returns:
            Points (..., 2).
        """
        return self.x_space.check(x).to(torch.float64)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Independent draws from the prior.

        Args:
            n: number of centres.
            seed: seed of the draw.

        Returns:
            Centres (n, 2).
        """
        return sample_space(self.x_space, n, method="uniform", seed=seed)

    def respond(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The centre with wide or narrow noise.

        Args:
            x: centres (..., 2).
            generator: source of the noise.

        Returns:
            Points (..., 2).
        """
        coin = torch.rand(x.shape[:-1], dtype=x.dtype, generator=generator).unsqueeze(-1)
        width = torch.where(coin < 0.5, *_WIDTHS)
        return x + width * torch.randn(x.shape, dtype=x.dtype, generator=generator)

    def posterior(self, y: Tensor, n: int = 1000, seed: int = 0) -> Tensor:
        """Exact draws from p(theta | y): Gaussians cut by the square, drawn by their quantiles.

        Args:
            y: one point (2,), or several (C, 2).
            n: number of draws for each.
            seed: seed of the draws.

        Returns:
            Centres (n, 2), or (C, n, 2).

        Raises:
            GenoptError: if y has another shape or a point is out of reach.
        """
        self.y_space.check(y, "y")
        if y.ndim not in (1, 2):
            raise GenoptError(f"y has shape {tuple(y.shape)}; expected (2,) or (C, 2)")
        rows = y.reshape(-1, 2).to(torch.float64)
        low, high = _cut(rows)
        mass = (high - low).prod(-1)
        if bool((mass.sum(-1) <= 0.0).any()):
            far = rows[int((mass.sum(-1) <= 0.0).nonzero()[0])]
            raise GenoptError(
                f"y = ({float(far[0]):g}, {float(far[1]):g}) is out of reach of the square"
            )
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(mass, n, replacement=True, generator=generator)
        row = torch.arange(len(rows)).unsqueeze(-1)
        low, high = low[row, chosen], high[row, chosen]
        share = torch.rand(low.shape, dtype=low.dtype, generator=generator)
        normal = torch.special.ndtri(low + (high - low) * share)
        width = normal.new_tensor(_WIDTHS)[chosen].unsqueeze(-1)
        theta = (rows.unsqueeze(1) + width * normal).clamp(-_BOUND, _BOUND)
        return theta.reshape(*y.shape[:-1], n, 2)

    def log_posterior(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log p(theta | y): two Gaussians, cut by the square.

        Args:
            x: centres (N, 2).
            y: points (N, 2) or (1, 2).

        Returns:
            Log densities (N,); -inf outside the square.

        Raises:
            GenoptError: if a shape does not fit.
        """
        x, y = self.check_pairs(x, y)
        low, high = _cut(y)
        inside = (high - low).prod(-1).sum(-1)
        normals = (torch.distributions.Normal(y, width).log_prob(x).sum(-1) for width in _WIDTHS)
        log_likelihood = torch.logsumexp(torch.stack(list(normals), -1), -1)
        possible = (x.abs() <= _BOUND).all(-1)
        return torch.where(possible, log_likelihood - inside.log(), -torch.inf)


def _cut(y: Tensor) -> tuple[Tensor, Tensor]:
    """Normal probabilities below the square's two edges, by width and column: each (C, 2, 2)."""
    width = y.new_tensor(_WIDTHS).unsqueeze(-1)
    low, high = (torch.special.ndtr((edge - y.unsqueeze(1)) / width) for edge in (-_BOUND, _BOUND))
    return low, high
