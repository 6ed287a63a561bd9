"""Design transform: designs of a Space as vectors that a Gaussian flow reaches without leaving it.

A bounded column becomes a probability p and then the normal quantile of p, so that every latent
vector decodes to a valid design. What a single number cannot tell (which p inside an integer's
cell, how far beyond a bound at which rows pile up, a share of nothing) is an interval of p that
training draws from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.models.flow.columns import Column, columns_of
from genopt.space import Space

LEAST_TAIL = 1e-3
_MOST_TAIL = 0.9
_ATOM = 1e-7
_CLIP = 1e-6
_CLASS_NOISE = 0.25
_LEAST_STD = 1e-6
_LEAST_LENGTH = 1e-4
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Spread:
    """Latent intervals that rows stand for, before standardisation; each (N, U), float64.

    Args:
        center: the representative inside each interval.
        low: lower ends.
        high: upper ends; equal to the lower ones where a row says all.
    """

    center: Tensor
    low: Tensor
    high: Tensor


class DesignTransform(nn.Module):
    """The map between designs (P columns) and latent vectors (U columns), with its log-determinant.

    Bounded columns: v = (x - lower) / (upper - lower), p = a + (1 - a - b) v, u = normal quantile
    of p, standardised. The tails a and b are the shares of training rows that lie exactly on the
    bounds (at least .001): such rows stand for all of p < a or p > 1 - b, and a latent vector that
    falls there decodes to the exact bound. Simplex columns do the same with the fractions of a
    broken stick, each within what the bounds of the others leave. Classes, and integers of at most
    ten values, are one-hot vectors with a little noise; integers of more values spread over their
    cell. Unbounded columns are standardised.

    With ``pca`` the latent vectors are turned to their principal directions and scaled there, so
    that a flow meets the few directions in which many columns move together one by one. All of them
    are kept: the map stays invertible, the density exact.

    Args:
        space: the Space of the designs.
        pca: whether to turn to principal directions.
    """

    tail_low: Tensor
    tail_high: Tensor
    mean: Tensor
    std: Tensor
    directions: Tensor
    lengths: Tensor

    def __init__(self, space: Space, pca: bool = False) -> None:
        super().__init__()
        self.space = space
        self.pca = pca
        self.columns: tuple[Column, ...] = columns_of(space)
        self.dim = sum(column.width for column in self.columns)
        one = torch.ones(self.dim, dtype=torch.float64)
        self.register_buffer("tail_low", LEAST_TAIL * one)
        self.register_buffer("tail_high", LEAST_TAIL * one)
        self.register_buffer("mean", 0.0 * one)
        self.register_buffer("std", one.clone())
        self.register_buffer("directions", torch.diag(one), persistent=pca)
        self.register_buffer("lengths", one.clone(), persistent=pca)
        probit = [column.probit for column in self.columns for _ in range(column.width)]
        self.register_buffer("probit", torch.tensor(probit), persistent=False)

    probit: Tensor

    def _placed(self) -> Iterator[tuple[slice, Column]]:
        start = 0
        for column in self.columns:
            yield slice(start, start + column.width), column
            start += column.width

    # -- fitting -----------------------------------------------------------------------------------
    def fit(self, x: Tensor, generator: torch.Generator | None = None) -> Spread:
        """Learn tails and scales from training rows.

        Args:
            x: valid designs (N, P).
            generator: source of randomness of the draw that sets the scales.

        Returns:
            What the rows stand for.
        """
        for place, column in self._placed():
            if column.tails:
                v, _, known = column.fraction(x)
                low = float((known & (v <= _ATOM)).double().mean())
                high = float((known & (v >= 1.0 - _ATOM)).double().mean())
                low, high = (min(max(s, LEAST_TAIL), _MOST_TAIL) for s in (low, high))
                shrink = min(1.0, (1.0 - LEAST_TAIL) / (low + high + LEAST_TAIL))
                self.tail_low[place], self.tail_high[place] = low * shrink, high * shrink
        spread = self.spread(x)
        u = self._quantile(_draw(spread, generator))
        self.mean.copy_(u.mean(0))
        self.std.copy_(u.std(0, correction=0).clamp_min(_LEAST_STD))
        if self.pca:
            z = (u - self.mean) / self.std
            values, directions = torch.linalg.eigh(z.T @ z / len(z))
            self.directions.copy_(directions)
            self.lengths.copy_(values.clamp_min(_LEAST_LENGTH**2).sqrt())
        return spread

    def spread(self, x: Tensor) -> Spread:
        """What rows stand for.

        Args:
            x: valid designs (N, P).

        Returns:
            Latent intervals.
        """
        x = x.to(self.mean)
        center, low, high = ([] for _ in range(3))
        for place, column in self._placed():
            v, width, known = column.fraction(x)
            if column.labels:
                middle, left, right = v, v - _CLASS_NOISE, v + _CLASS_NOISE
            elif not column.probit:
                middle, left, right = v, v - 0.5 * width, v + 0.5 * width
            else:
                a, b = self.tail_low[place], self.tail_high[place]
                share = 1.0 - a - b
                middle, half = a + share * v, 0.5 * share * width
                left, right = middle - half, middle + half
                if column.tails:
                    at_low, at_high = known & (v <= _ATOM), known & (v >= 1.0 - _ATOM)
                    left = torch.where(at_low, 0.0, torch.where(at_high, 1.0 - b, left))
                    right = torch.where(at_high, 1.0, torch.where(at_low, a, right))
                middle = torch.where(known, middle, 0.5)
                left, right = torch.where(known, left, 0.0), torch.where(known, right, 1.0)
            center.append(middle)
            low.append(left)
            high.append(right)
        return Spread(*(torch.cat(part, -1) for part in (center, low, high)))

    def draw(self, low: Tensor, high: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised latent vectors at random places of their intervals, not turned yet.

        Args:
            low: lower ends (N, U).
            high: upper ends (N, U).
            generator: source of randomness, on the same device.

        Returns:
            Latent vectors (N, U) of the intervals' dtype.
        """
        u = self._quantile(_draw(Spread(low, low, high), generator))
        return (u - self.mean.to(u)) / self.std.to(u)

    def turn(self, z: Tensor) -> Tensor:
        """Standardised latent vectors in the coordinates that the flow moves.

        Args:
            z: standardised latent vectors (..., U), such as `draw` gives.

        Returns:
            Latent vectors (..., U); the same ones without ``pca``.
        """
        return z @ self.directions.to(z) / self.lengths.to(z) if self.pca else z

    def _unturned(self, z: Tensor) -> Tensor:
        z = z.to(self.mean)
        return (z * self.lengths) @ self.directions.T if self.pca else z

    # -- the map -----------------------------------------------------------------------------------
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors of designs and the log-determinant of the map.

        A simplex counts with all its columns but the last; an integer with the density of its cell.

        Args:
            x: valid designs (N, P).

        Returns:
            Latent vectors (N, U) and log abs det (N,), float64.
        """
        z, slopes = self.encode_columns(x)
        return z, slopes.sum(-1)

    def encode_columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent vectors of designs and what each latent column adds to the log-determinant.

        Args:
            x: valid designs (N, P).

        Returns:
            Latent vectors (N, U) and their terms (N, U), float64.
        """
        x = x.to(self.mean)
        u = self._quantile(self.spread(x).center)
        return self.turn((u - self.mean) / self.std), self._slopes(u, x)

    def log_det(self, z: Tensor) -> Tensor:
        """The log-determinant at the design that a latent vector stands for.

        Args:
            z: latent vectors (N, U).

        Returns:
            What each latent column adds (N, U), float64; differentiable, level beyond the bounds.
        """
        u = self._unturned(z) * self.std + self.mean
        edges = self._quantile(torch.stack([self.tail_low, 1.0 - self.tail_high]))
        u = torch.where(self.probit, torch.minimum(torch.maximum(u, edges[0]), edges[1]), u)
        return self._slopes(u, self.decode(z))

    def _slopes(self, u: Tensor, x: Tensor) -> Tensor:
        slope = -torch.log(self.std * self.lengths).expand_as(u)
        inside = torch.log(1.0 - self.tail_low - self.tail_high) + 0.5 * (u**2 + _LOG_2PI)
        slope = torch.where(self.probit, slope + inside, slope)
        ranges = [c.log_range(x).unsqueeze(-1).expand(*u.shape[:-1], c.width) for c in self.columns]
        return slope - torch.cat(ranges, -1)

    def centers(self, x: Tensor) -> Tensor:
        """Standardised latent vectors of designs, not turned yet.

        Args:
            x: valid designs (N, P).

        Returns:
            Latent vectors (N, U), float64.
        """
        return (self._quantile(self.spread(x).center) - self.mean) / self.std

    def given(self, x: Tensor) -> Tensor:
        """Latent vectors that stand for known designs in a condition.

        A row on a bound at which others pile up, an integer or a class is named by the middle of
        what it stands for, so a pile is told from the values just beside it.

        Args:
            x: valid designs (N, P).

        Returns:
            Latent vectors (N, U), float64.
        """
        spread = self.spread(x)
        return (self._quantile(0.5 * (spread.low + spread.high)) - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """The design that a latent vector stands for.

        Args:
            z: latent vectors (..., U).

        Returns:
            Valid designs (..., P), float64; differentiable where the design is inside its bounds.
        """
        u = self._unturned(z) * self.std + self.mean
        p = torch.special.ndtr(u)
        v = ((p - self.tail_low) / (1.0 - self.tail_low - self.tail_high)).clamp(0.0, 1.0)
        v = torch.where(self.probit, v, u)
        parts: dict[int, Tensor] = {}
        for place, column in self._placed():
            column.place(v[..., place], parts)
        return torch.stack([parts[i] for i in range(self.space.dim)], -1)

    def _quantile(self, value: Tensor) -> Tensor:
        clipped = value.clamp(_CLIP, 1.0 - _CLIP)
        return torch.where(self.probit, torch.special.ndtri(clipped), value)


def check_designs(space: Space, x: Tensor) -> Tensor:
    """Training designs, moved onto the Space where rounding left them beside it.

    Args:
        space: the Space of the designs.
        x: designs (N, P).

    Returns:
        Valid designs (N, P), float64.

    Raises:
        GenoptError: if an entry is not finite, out of bounds, no valid class or integer, or a
            simplex does not sum to one within .02.
    """
    x = x.detach().to(torch.float64)
    if not bool(torch.isfinite(x).all()):
        row, column = (int(i) for i in (~torch.isfinite(x)).nonzero()[0])
        raise GenoptError(
            f"x column {space.names[column]!r} has no finite value in row {row}: designs must be "
            "complete; drop or fill these rows"
        )
    for group in space.simplex_indices:
        total = x[:, list(group)].sum(-1, keepdim=True)
        worst = int((total - 1.0).abs().argmax())
        if abs(float(total[worst]) - 1.0) > 0.02:
            raise GenoptError(
                f"x columns {', '.join(space.names[i] for i in group)} are a simplex, but sum to "
                f"{float(total[worst]):.4g} in row {worst}: scale them to sum to one"
            )
        x = x.clone()
        x[:, list(group)] = x[:, list(group)] / total
    valid = space.project(x)
    scale = torch.where(torch.isfinite(space.upper - space.lower), space.upper - space.lower, 1.0)
    loose = torch.zeros(space.dim, dtype=torch.bool)
    for group in space.simplex_indices:
        loose[list(group)] = True
    off = (valid - x).abs() > torch.where(loose, 0.02, 1e-6) * scale + 1e-12
    if bool(off.any()):
        row, column = (int(i) for i in off.nonzero()[0])
        v = space.variables[column]
        raise GenoptError(
            f"x column {v.name!r} holds {float(x[row, column]):.6g} in row {row} "
            f"({int(off.any(-1).sum())} such rows), which its Space does not allow (kind {v.kind}, "
            f"bounds [{v.lower:.6g}, {v.upper:.6g}]): widen the bounds or drop these rows"
        )
    return valid


def _draw(spread: Spread, generator: torch.Generator | None) -> Tensor:
    low = spread.low
    share = torch.rand(low.shape, generator=generator, dtype=low.dtype, device=low.device)
    return low + (spread.high - low) * share
