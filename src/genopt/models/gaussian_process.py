"""A Gaussian process of y given x: a small exact surrogate for searches that add rows as they go.

It costs the cube of the number of rows and needs no training schedule, so it can be refitted after
every few simulations. Its covariance is a smooth function of all columns, a sum of functions of
single columns and a parabola in each column, which goes on where there are no rows; the scale of
the values may be learned too (`warping`). The marginal likelihood says how much of each there is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.covariance import Covariance
from genopt.models.warping import unwarped, warped
from genopt.space import Space

_ROWS = 384
_CHUNK = 2048
_JITTER = 1e-8
_LEAST_NOISE = 1e-6
# the covariance is looked for again when this share of the rows is new
_NEW, _SAME = 0.13, 1e-9


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
        warp: whether the scale of the properties is learned too, for values that are known without
            noise and flatten out or fall steeply; what is predicted is a median then.

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
        warp: bool = False,
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
        self.steps, self.seed, self.zoomed, self.warp = steps, seed, zoomed, warp
        self._kernel: Covariance | None = None
        self._searches = 0
        self._searched_at = torch.zeros(0)
        self._origin, self._range = torch.zeros(()), torch.ones(())

    @property
    def has_spread(self) -> bool:
        """It always knows how sure it is."""
        return True

    @property
    def _found(self) -> Covariance:
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
        self._lowest, self._height = values.amin(0), values.amax(0) - values.amin(0)
        self._height = torch.where(self._height > 0.0, self._height, 1.0)
        unit = ((values - self._lowest) / self._height).T
        # a covariance that was found for nearly the same rows still holds
        if self._kernel is None or _unlike(rows, self._searched_at) >= _NEW * len(rows):
            self._kernel = self._searched(unit)
            self._searched_at = rows
        seen, _ = self._seen(unit, self._found)
        self._mean, self._unit = seen[0].mean(-1), seen[0].std(-1).clamp_min(1e-12)
        scaled = (seen[0] - self._mean[:, None]) / self._unit[:, None]
        gram = self._within(self._x)
        self._factor = _cholesky(gram + torch.diag_embed(self._noise(len(self._x))))
        ones = torch.ones_like(scaled)[..., None]
        right = torch.cholesky_solve(torch.cat([scaled[..., None], ones], -1), self._factor)
        # the constant mean that is most likely
        self._level = right[..., 0].sum(-1) / right[..., 1].sum(-1)
        self._weights = right[..., 0] - self._level[:, None] * right[..., 1]

    def _seen(self, unit: Tensor, kernel: Covariance) -> tuple[Tensor, Tensor]:
        """Values (K, N) on the scale of each start (R, K, N), and the slopes of the scale."""
        if self.warp:
            return warped(unit.expand(len(kernel.warp), -1, -1), kernel.warp)
        return unit[None], torch.ones_like(unit)[None]

    def _searched(self, unit: Tensor) -> Covariance:
        """The covariance of the largest marginal likelihood, over a few starts (posterior mode)."""
        width = self._x.shape[-1]
        generator = torch.Generator().manual_seed(self.seed)
        x = self._x
        if len(x) > _ROWS:
            chosen = torch.randperm(len(x), generator=generator)[:_ROWS]
            x, unit = x[chosen], unit[:, chosen]
        starts = Covariance.starts(width, len(unit), self.warp)
        steps = self.steps
        if self._kernel is not None:
            # one start a search, in turn: what was found is seldom wrong
            starts = self._kernel.joined(starts.start(self._searches))
            steps = max(self.steps // 2, 1)
        self._searches += 1
        tensors = [t.clone().requires_grad_() for t in starts.tensors()]
        kernel = Covariance(*tensors)
        optimizer = torch.optim.Adam(tensors, lr=0.15)
        best = torch.full(tensors[0].shape, torch.inf, dtype=torch.float64)
        kept = [t.detach().clone() for t in tensors]
        for _ in range(steps):
            optimizer.zero_grad()
            value = self._misfit(kernel, x, unit)
            better = value.detach() < best
            best = torch.where(better, value.detach(), best)
            for place, t in zip(kept, tensors, strict=True):
                place[better] = t.detach()[better]
            value.sum().backward()
            optimizer.step()
        return Covariance(*kept).best(best.argmin(0))

    def _misfit(self, kernel: Covariance, x: Tensor, unit: Tensor) -> Tensor:
        """Minus the log posterior density of the numbers (R, K), a row each."""
        n = len(x)
        seen, slope = self._seen(unit, kernel)
        deviation = seen.std(-1, keepdim=True).clamp_min(1e-12)
        scaled = (seen - seen.mean(-1, keepdim=True)) / deviation
        noise = kernel.noise.exp() + _LEAST_NOISE
        gram = kernel.between(x, x) + noise[..., None, None] * torch.eye(n, dtype=torch.float64)
        factor = _cholesky(gram)
        solved = torch.linalg.solve_triangular(
            factor, scaled[..., None].expand(*factor.shape[:-1], 1), upper=False
        )
        density = (slope / deviation).log().sum(-1)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        fit = 0.5 * solved.square().sum((-2, -1)) + log_det - density
        return (fit + kernel.surprise()) / n

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
        return self.belief_y(x)[1]

    def belief_y(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`predict_y` and `spread_y` for little more than the price of one.

        Args:
            x: designs (..., P).

        Returns:
            Properties and standard deviations (..., K) each, float64.
        """
        both = self._filled(x, lambda part: torch.cat(self._posterior(part, spread=True), -1))
        return both[..., : self.y_space.dim], both[..., self.y_space.dim :]

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
        own = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1e-12).sqrt()
        factor = self.spread_y(x)[:, list(self.modelled)].T / own
        out = torch.zeros(self.y_space.dim, len(x), len(x), dtype=torch.float64)
        out[list(self.modelled)] = covariance * factor[:, :, None] * factor[:, None, :]
        return out

    def _filled(self, x: Tensor, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """What is asked of designs, with its columns at their places among all of y (..., n K)."""
        flat = x.reshape(-1, x.shape[-1]).to(torch.float64)
        said = torch.cat([ask(part) for part in flat.split(_CHUNK)])
        said = said.reshape(len(flat), -1, len(self.modelled))
        out = torch.full((*said.shape[:2], self.y_space.dim), torch.nan, dtype=torch.float64)
        out = out.index_copy(2, torch.tensor(self.modelled), said)
        return out.reshape(*x.shape[:-1], -1)

    def _posterior(self, x: Tensor, spread: bool) -> tuple[Tensor, ...]:
        cross = self._between(self._x, self._encoded(x))
        mean = (cross * self._weights[..., None]).sum(-2) + self._level[:, None]
        if not spread:
            return (self._answer(mean[None])[0].T,)
        half = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        variance = self._found.variance(self._encoded(x))[0] - half.square().sum(-2)
        deviation = variance.clamp_min(1e-12).sqrt()
        below, middle, above = self._answer(torch.stack([mean - deviation, mean, mean + deviation]))
        return middle.T, 0.5 * (above - below).T

    def _answer(self, scaled: Tensor) -> Tensor:
        """Values of y for scaled ones (n, K, M)."""
        value = scaled * self._unit[:, None] + self._mean[:, None]
        if self.warp:
            value = unwarped(value, self._found.warp)
        return value * self._height[:, None] + self._lowest[:, None]

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
