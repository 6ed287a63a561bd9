"""The covariance of a Gaussian process: single columns, all columns together, and a trend.

Length scales are long in many columns (Hvarfner, Hellsten and Nardi 2024, arXiv 2402.02229); the
sum of functions of single columns is that of Duvenaud, Nickisch and Rasmussen 2011 (arXiv
1112.4394). Several sets of numbers, the *starts* of a search, are one batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.models.warping import HIGH, LOW, PLAIN, SPREAD

# a length scale and a warp each; the last ones are for outputs that are warped
_STARTS = ((0.006, PLAIN), (0.03, PLAIN), (0.2, PLAIN), (0.2, LOW), (0.2, HIGH))
# the prior of a length scale in one column, in logs (mean to be raised by half the log of E)
_LOG_LENGTH, _LENGTH_SPREAD = math.sqrt(2.0), math.sqrt(3.0)


@dataclass
class Covariance:
    """Logs of the covariance's numbers for R starts and K outputs.

    Args:
        single: length scale of the functions of single columns (R, K).
        single_scale: their variance in all (R, K).
        joint: length scales of the function of all columns (R, K, E).
        joint_scale: its variance (R, K).
        trend_scale: variances of lines and of parabolas in all columns (R, K, 2).
        noise: variance of the noise (R, K).
        warp: numbers of the warp of the output (R, K, 4).
    """

    single: Tensor
    single_scale: Tensor
    joint: Tensor
    joint_scale: Tensor
    trend_scale: Tensor
    noise: Tensor
    warp: Tensor

    @classmethod
    def starts(cls, width: int, outputs: int, warp: bool) -> Covariance:
        """Where a search begins: a few lengths of the functions of single columns, a few warps.

        Args:
            width: number of encoded columns E.
            outputs: number of outputs K.
            warp: whether the outputs are warped.

        Returns:
            The starts.
        """

        def filled(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, outputs).clone()

        chosen = [start for start in _STARTS if warp or start[1] is PLAIN]
        n, joint = len(chosen), math.log(0.5) + 0.5 * math.log(width)
        warps = torch.tensor([warp for _, warp in chosen], dtype=torch.float64)
        return cls(
            filled([math.log(length) for length, _ in chosen]),
            filled([math.log(0.3)] * n),
            torch.full((n, outputs, width), joint, dtype=torch.float64),
            filled([math.log(0.7)] * n),
            torch.full((n, outputs, 2), math.log(0.3), dtype=torch.float64),
            filled([math.log(1e-2)] * n),
            warps[:, None].expand(-1, outputs, -1).clone(),
        )

    def tensors(self) -> list[Tensor]:
        """The numbers, in their order."""
        return list(vars(self).values())

    def start(self, number: int) -> Covariance:
        """One start.

        Args:
            number: which, counted round and round.

        Returns:
            The covariance of R = 1 start.
        """
        at = number % len(self.single)
        return Covariance(*(t[at : at + 1] for t in self.tensors()))

    def best(self, index: Tensor) -> Covariance:
        """One start for each output.

        Args:
            index: the chosen starts (K,).

        Returns:
            The covariance of R = 1 start.
        """
        outputs = torch.arange(len(index))
        return Covariance(*(t.detach()[index, outputs][None].clone() for t in self.tensors()))

    def joined(self, other: Covariance) -> Covariance:
        """These starts and others after them.

        Args:
            other: more starts.

        Returns:
            All of them.
        """
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        return Covariance(*(torch.cat(pair) for pair in pairs))

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariances of the values at two sets of designs.

        Args:
            a: encoded designs (N, E).
            b: encoded designs (M, E).

        Returns:
            Covariances (R, K, N, M).
        """
        width = a.shape[-1]
        squares = (a[:, None] - b[None]).square()
        reach = (-2.0 * self.single).exp()[..., None, None]
        singles = torch.zeros(())
        for e in range(width):
            singles = singles + torch.exp(-0.5 * squares[..., e] * reach)
        singles = singles * (self.single_scale.exp() / width)[..., None, None]
        weights = (-2.0 * self.joint).exp()
        r = torch.einsum("nme,rke->rknm", squares, weights).clamp_min(1e-16).sqrt()
        root = math.sqrt(5.0) * r
        matern = (1.0 + root + root.square() / 3.0) * torch.exp(-root)
        line, parabola = (self.trend_scale.exp() / width)[..., None, None, :].unbind(-1)
        from_a, from_b = 2.0 * a - 1.0, 2.0 * b - 1.0
        trend = line * (from_a @ from_b.T) + parabola * (from_a.square() @ from_b.square().T)
        return singles + matern * self.joint_scale.exp()[..., None, None] + trend

    def variance(self, x: Tensor) -> Tensor:
        """Prior variances of the values at designs.

        Args:
            x: encoded designs (M, E).

        Returns:
            Variances (R, K, M).
        """
        away = (2.0 * x - 1.0).square()
        powers = torch.stack([away.mean(-1), away.square().mean(-1)], -1)
        trend = (self.trend_scale.exp()[..., None, :] * powers).sum(-1)
        return (self.single_scale.exp() + self.joint_scale.exp())[..., None] + trend

    def surprise(self) -> Tensor:
        """Minus the log prior density of the numbers, up to a constant.

        Returns:
            Values (R, K).
        """
        expected = _LOG_LENGTH + 0.5 * math.log(self.joint.shape[-1])
        found = 0.5 * ((self.joint - expected) / _LENGTH_SPREAD).square().sum(-1)
        found = found + 0.5 * ((self.noise - math.log(1e-4)) / 3.0).square()
        found = found + 0.5 * (self.single_scale / 3.0).square()
        found = found + 0.5 * (self.joint_scale / 3.0).square()
        found = found + 0.5 * (self.trend_scale / 3.0).square().sum(-1)
        return found + 0.5 * ((self.warp - self.warp.new_tensor(PLAIN)) / SPREAD).square().sum(-1)
