"""A Gaussian process of y given x: a small exact surrogate for searches that add rows as they go.

It costs the cube of the number of rows and needs no training schedule, so it can be refitted after
every few simulations. Its covariance is a smooth function of all columns, with long length scales
in many columns (Hvarfner, Hellsten and Nardi 2024, arXiv 2402.02229), a sum of functions of
single columns (Duvenaud, Nickisch and Rasmussen 2011, arXiv 1112.4394) and a parabola in each
column, which goes on where there are no rows. The marginal likelihood says how much of each there
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.space import Space

_ROWS = 384
_CHUNK = 2048
_STARTS = (0.006, 0.03, 0.2)
_JITTER = 1e-8
# the prior of a length scale in one column, in logs (mean to be raised by half the log of E)
_LOG_LENGTH, _LENGTH_SPREAD = math.sqrt(2.0), math.sqrt(3.0)
_LEAST_NOISE = 1e-6
# the covariance is looked for again when this share of the rows is new
_NEW, _SAME = 0.13, 1e-9


@dataclass
class _Kernel:
    """Logs of the covariance's numbers for R starts and K outputs.

    Args:
        single: length scale of the functions of single columns (R, K).
        single_scale: their variance in all (R, K).
        joint: length scales of the function of all columns (R, K, E).
        joint_scale: its variance (R, K).
        trend_scale: variances of lines and of parabolas in all columns (R, K, 2).
        noise: variance of the noise (R, K).
    """

    single: Tensor
    single_scale: Tensor
    joint: Tensor
    joint_scale: Tensor
    trend_scale: Tensor
    noise: Tensor

    def tensors(self) -> list[Tensor]:
        return list(vars(self).values())

    def best(self, index: Tensor) -> _Kernel:
        """The chosen start (K,) of each output."""
        outputs = torch.arange(len(index))
        return _Kernel(*(t.detach()[index, outputs][None].clone() for t in self.tensors()))

    def joined(self, other: _Kernel) -> _Kernel:
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        return _Kernel(*(torch.cat(pair) for pair in pairs))

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Covariances (R, K, N, M) of encoded designs (N, E) and (M, E)."""
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
        """Prior variances (R, K, M) of encoded designs (M, E)."""
        away = (2.0 * x - 1.0).square()
        powers = torch.stack([away.mean(-1), away.square().mean(-1)], -1)
        trend = (self.trend_scale.exp()[..., None, :] * powers).sum(-1)
        return (self.single_scale.exp() + self.joint_scale.exp())[..., None] + trend


class GaussianProcess:
    """Exact Gaussian processes, one for each column of y that has labels.

    Args:
        x_space: the Space of the designs; classes enter one-hot.
        y_space: the Space of the properties.
        columns: the columns of y that are modelled; None for all numbers.
        steps: steps of the search for the covariance's numbers.
        seed: seed of the rows that this search looks at, where there are many.
        zoomed: whether lengths are counted in the range of the rows, for rows from a small part of
            the Space; else in the range of the column.

    Raises:
        GenoptError: if a column to be modelled is a class.

    Example:
        >>> x = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
        >>> process = GaussianProcess(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 1.0)))
        >>> process.fit(x, x.square())
        >>> bool((process.predict_y(x) - x.square()).abs().max() < 0.02)
        True
    """

    def __init__(
        self,
        x_space: Space,
        y_space: Space,
        *,
        columns: tuple[int, ...] | None = None,
        steps: int = 40,
        seed: int = 0,
        zoomed: bool = False,
    ) -> None:
        self.x_space, self.y_space = x_space, y_space
        numbers = [i for i, v in enumerate(y_space) if not v.labels]
        self.modelled = tuple(numbers) if columns is None else columns
        for i in self.modelled:
            if i not in numbers:
                raise GenoptError(
                    f"a Gaussian process models numbers, but y column {y_space.names[i]!r} is a "
                    "class: use an ensemble"
                )
        self.steps, self.seed, self.zoomed = steps, seed, zoomed
        self._kernel: _Kernel | None = None
        self._searched_at = torch.zeros(0)
        self._origin, self._range = torch.zeros(()), torch.ones(())

    @property
    def has_spread(self) -> bool:
        """It always knows how sure it is."""
        return True

    @property
    def _found(self) -> _Kernel:
        if self._kernel is None:
            raise GenoptError("this Gaussian process has learned nothing yet: call fit(x, y)")
        return self._kernel

    # -- learning ----------------------------------------------------------------------------------
    def fit(self, x: Tensor, y: Tensor) -> None:
        """Learn from rows; a second fit goes on from the covariance of the first.

        Args:
            x: designs (N, P).
            y: properties (N, K); rows with a gap in a modelled column are left out.

        Raises:
            GenoptError: if fewer than two rows are complete.
        """
        values = y[:, list(self.modelled)].to(torch.float64)
        complete = torch.isfinite(values).all(1)
        if int(complete.sum()) < 2:
            raise GenoptError("a Gaussian process needs two rows with all its columns at least")
        rows = self.x_space.encode(x[complete].to(torch.float64))
        if self.zoomed:
            self._origin, self._range = rows.amin(0), rows.amax(0) - rows.amin(0)
            self._range = torch.where(self._range > 0.0, self._range, 1.0)
        self._x = self._encoded(x[complete])
        values = values[complete]
        self._mean, self._unit = values.mean(0), values.std(0).clamp_min(1e-12)
        scaled = ((values - self._mean) / self._unit).T
        # a covariance that was found for nearly the same rows still holds
        if self._kernel is None or _unlike(rows, self._searched_at) >= _NEW * len(rows):
            self._kernel = self._searched(scaled)
            self._searched_at = rows
        gram = self._within(self._x)
        self._factor = _cholesky(gram + torch.diag_embed(self._noise(len(self._x))))
        ones = torch.ones_like(scaled)[..., None]
        right = torch.cholesky_solve(torch.cat([scaled[..., None], ones], -1), self._factor)
        # the constant mean that is most likely
        self._level = right[..., 0].sum(-1) / right[..., 1].sum(-1)
        self._weights = right[..., 0] - self._level[:, None] * right[..., 1]

    def _searched(self, scaled: Tensor) -> _Kernel:
        """The covariance of the largest marginal likelihood, over a few starts (posterior mode)."""
        width = self._x.shape[-1]
        generator = torch.Generator().manual_seed(self.seed)
        x = self._x
        if len(x) > _ROWS:
            chosen = torch.randperm(len(x), generator=generator)[:_ROWS]
            x, scaled = x[chosen], scaled[:, chosen]
        starts = self._starts(width, len(scaled))
        steps = self.steps
        if self._kernel is not None:
            starts, steps = self._kernel.joined(starts), max(self.steps // 2, 1)
        tensors = [t.clone().requires_grad_() for t in starts.tensors()]
        kernel = _Kernel(*tensors)
        optimizer = torch.optim.Adam(tensors, lr=0.15)
        best = torch.full(tensors[0].shape, torch.inf, dtype=torch.float64)
        kept = [t.detach().clone() for t in tensors]
        for _ in range(steps):
            optimizer.zero_grad()
            value = self._misfit(kernel, x, scaled)
            better = value.detach() < best
            best = torch.where(better, value.detach(), best)
            for place, t in zip(kept, tensors, strict=True):
                place[better] = t.detach()[better]
            value.sum().backward()
            optimizer.step()
        return _Kernel(*kept).best(best.argmin(0))

    def _starts(self, width: int, outputs: int) -> _Kernel:
        def filled(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, outputs).clone()

        n = len(_STARTS)
        joint = math.log(0.5) + 0.5 * math.log(width)
        return _Kernel(
            filled([math.log(length) for length in _STARTS]),
            filled([math.log(0.3)] * n),
            torch.full((n, outputs, width), joint, dtype=torch.float64),
            filled([math.log(0.7)] * n),
            torch.full((n, outputs, 2), math.log(0.3), dtype=torch.float64),
            filled([math.log(1e-2)] * n),
        )

    def _misfit(self, kernel: _Kernel, x: Tensor, scaled: Tensor) -> Tensor:
        """Minus the log posterior density of the numbers (R, K), a row each."""
        n = len(x)
        noise = kernel.noise.exp() + _LEAST_NOISE
        gram = kernel.between(x, x) + noise[..., None, None] * torch.eye(n, dtype=torch.float64)
        factor = _cholesky(gram)
        solved = torch.linalg.solve_triangular(
            factor, scaled[..., None].expand(*factor.shape[:-1], 1), upper=False
        )
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        fit = 0.5 * solved.square().sum((-2, -1)) + log_det
        expected = _LOG_LENGTH + 0.5 * math.log(x.shape[-1])
        lengths = 0.5 * ((kernel.joint - expected) / _LENGTH_SPREAD).square().sum(-1)
        shape = 0.5 * ((kernel.noise - math.log(1e-4)) / 3.0).square()
        shape = shape + 0.5 * (kernel.single_scale / 3.0).square()
        shape = shape + 0.5 * (kernel.joint_scale / 3.0).square()
        shape = shape + 0.5 * (kernel.trend_scale / 3.0).square().sum(-1)
        return (fit + lengths + shape) / n

    # -- asking ------------------------------------------------------------------------------------
    def predict_y(self, x: Tensor) -> Tensor:
        """Properties of designs.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K), float64, differentiable in x; NaN for what is not modelled.
        """
        return self._filled(x, lambda part: self._posterior(part, spread=False)[0])

    def spread_y(self, x: Tensor) -> Tensor:
        """How far the truth may lie from `predict_y`, without the noise.

        Args:
            x: designs (..., P).

        Returns:
            Standard deviations (..., K), float64.
        """
        return self._filled(x, lambda part: self._posterior(part, spread=True)[1])

    def joint_y(self, x: Tensor) -> Tensor:
        """How the truth varies together at several designs, without the noise.

        Args:
            x: designs (M, P).

        Returns:
            Covariances (K, M, M), float64; zero for what is not modelled.
        """
        encoded = self._encoded(x)
        prior = self._within(encoded)
        half = torch.linalg.solve_triangular(
            self._factor, self._between(self._x, encoded), upper=False
        )
        covariance = prior - half.mT @ half
        out = torch.zeros(self.y_space.dim, len(x), len(x), dtype=torch.float64)
        out[list(self.modelled)] = covariance * self._unit.square()[:, None, None]
        return out

    def _filled(self, x: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.float64)
        parts = [ask(part) for part in flat.split(_CHUNK)]
        out = torch.full((len(flat), self.y_space.dim), torch.nan, dtype=torch.float64)
        out = out.index_copy(1, torch.tensor(self.modelled), torch.cat(parts))
        return out.reshape(*x.shape[:-1], self.y_space.dim)

    def _posterior(self, x: Tensor, spread: bool) -> tuple[Tensor, Tensor]:
        cross = self._between(self._x, self._encoded(x))
        mean = (cross * self._weights[..., None]).sum(-2) + self._level[:, None]
        deviation = mean
        if spread:
            half = torch.linalg.solve_triangular(self._factor, cross, upper=False)
            variance = self._found.variance(self._encoded(x))[0] - half.square().sum(-2)
            deviation = variance.clamp_min(1e-12).sqrt()
        return (mean.T * self._unit + self._mean), deviation.T * self._unit

    def _encoded(self, x: Tensor) -> Tensor:
        return (self.x_space.encode(x.to(torch.float64)) - self._origin) / self._range

    def _within(self, x: Tensor) -> Tensor:
        return self._between(x, x)

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        return self._found.between(a, b)[0]

    def _noise(self, n: int) -> Tensor:
        return (self._found.noise[0].exp() + _LEAST_NOISE)[:, None].expand(-1, n)


def _unlike(rows: Tensor, known: Tensor) -> int:
    """How many rows (N, E) are not among the known ones (M, E)."""
    if not len(known):
        return len(rows)
    return int(
        (
            torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist").amin(1) > _SAME
        ).sum()
    )


def _cholesky(gram: Tensor) -> Tensor:
    """A Cholesky factor, with as much added to the diagonal as it takes."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
    jitter = _JITTER
    for _ in range(7):
        factor, failed = torch.linalg.cholesky_ex(gram + jitter * eye)
        if not bool(failed.any()):
            break
        jitter *= 10.0
    return factor
