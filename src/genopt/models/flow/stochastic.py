"""A sampler that adds noise on the way and keeps every distribution that the flow passes through.

Fresh noise forgets earlier errors, at the price of more network calls for the same accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.flow.couplings import Coupling
from genopt.models.flow.paths import Path
from genopt.models.flow.samplers import Field, FixedStep, Midpoint, Sampler, Solution


@dataclass(frozen=True)
class SDE(FixedStep):
    """Heun's rule for a stochastic equation with the marginals of the ODE; two calls a step.

    A velocity v along alpha x_1 + sigma x_0 gives the score of its marginals,
    ``-(alpha' x - alpha v) / (sigma w)`` with ``w = alpha' sigma - alpha sigma'``. So

    ``dx = [v - noise (alpha' x - alpha v)] dt + sqrt(2 noise sigma w) dW``

    has the same marginals for every amount of noise (Song et al., arXiv 2011.13456; Ma et al.,
    arXiv 2401.08740); with this diffusion nothing is infinite at either end. The last step has no
    noise, as nothing could remove it. It draws noise of its own and so serves `sample` only. The
    score needs noise that is independent of the data, so a coupling by optimal transport is
    refused.

    Args:
        noise: amount of noise; 0 is the ODE.

    Raises:
        GenoptError: if the noise is negative.
    """

    steps: int = 32
    noise: float = 1.0
    calls_a_step: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise < 0:
            raise GenoptError(f"sampler.noise must not be negative, got {self.noise}")

    def solve(
        self,
        field: Field,
        x: Tensor,
        steps: int | None = None,
        backward: bool = False,
        keep: bool = False,
    ) -> Solution:
        """Refused: a solve needs the path and a source of randomness, which `sample` gives.

        Args:
            field: the velocity.
            x: state at the start.
            steps: number of steps.
            backward: from t = 1 to t = 0 instead.
            keep: whether to keep all states.

        Returns:
            Nothing.

        Raises:
            GenoptError: always.
        """
        raise GenoptError(
            "sampler=sde draws noise of its own, so it carries no given noise to a design and has "
            "no density: use it with sample, and an ODE such as midpoint with transport and "
            "log_prob"
        )


@dataclass(frozen=True)
class _Drawing(SDE):
    """An `SDE` that has a path and a source of randomness."""

    path: Path | None = None
    generator: torch.Generator | None = None

    def solve(
        self,
        field: Field,
        x: Tensor,
        steps: int | None = None,
        backward: bool = False,
        keep: bool = False,
    ) -> Solution:
        if backward:
            return super().solve(field, x, steps, backward, keep)
        return FixedStep.solve(self, field, x, steps, keep=keep)

    def step(self, field: Field, t: float, h: float, x: Tensor) -> Tensor:
        end = t + h
        if end >= 1.0 - 1e-12 or self.noise == 0.0:
            return Midpoint().step(field, t, h, x)
        drift = self._drift(field)
        middle = 0.5 * (t + end)
        # Simpson's rule: exact for the variances of straight paths
        variance = (self._rate(t) + 4.0 * self._rate(middle) + self._rate(end)) * h / 6.0
        source = self.generator
        device = x.device if source is None else source.device
        fresh = torch.randn(x.shape, generator=source, dtype=x.dtype, device=device).to(x.device)
        first = drift(t, x)
        pushed = torch.add(x, fresh, alpha=variance**0.5)
        second = drift(end, torch.add(pushed, first, alpha=h))
        return torch.add(pushed, first + second, alpha=0.5 * h)

    def _drift(self, field: Field) -> Callable[[float, Tensor], Tensor]:
        def drift(t: float, x: Tensor) -> Tensor:
            alpha, _, d_alpha, _ = self._at(t)
            return torch.add(
                (1.0 + self.noise * alpha) * field(t, x), x, alpha=-self.noise * d_alpha
            )

        return drift

    def _rate(self, t: float) -> float:
        alpha, sigma, d_alpha, d_sigma = self._at(t)
        return 2.0 * self.noise * sigma * (d_alpha * sigma - alpha * d_sigma)

    def _at(self, t: float) -> tuple[float, float, float, float]:
        assert self.path is not None
        s = self.path.schedule(torch.tensor(t, dtype=torch.float64))
        return float(s.alpha), float(s.sigma), float(s.d_alpha), float(s.d_sigma)


def check_sampler(sampler: Sampler, coupling: Coupling, straight: bool = False) -> None:
    """Refuse a stochastic sampler where the velocity does not tell the score.

    Args:
        sampler: the sampler.
        coupling: the coupling that the velocity was learned with.
        straight: whether it was made straight by reflow.

    Raises:
        GenoptError: if they do not go together.
    """
    if isinstance(sampler, SDE) and straight:
        raise GenoptError(
            "sampler=sde needs noise that is independent of the data, and reflow ties them: use "
            "reflow=false, or an ODE such as sampler=midpoint"
        )
    if isinstance(sampler, SDE) and not getattr(coupling, "independent", False):
        raise GenoptError(
            f"sampler=sde needs noise that is independent of the data, and "
            f"{type(coupling).__name__} ties them: use coupling=independent, or an ODE such as "
            "sampler=midpoint"
        )


def drawing(sampler: Sampler, path: Path, generator: torch.Generator | None) -> Sampler:
    """A sampler that is ready to draw: an `SDE` is given its path and its randomness.

    Args:
        sampler: the sampler.
        path: the path that the velocity was learned on.
        generator: source of randomness.

    Returns:
        The sampler itself, or a copy that can solve.
    """
    if type(sampler) is not SDE:
        return sampler
    return _Drawing(sampler.steps, sampler.grading, sampler.noise, path, generator)
