"""Residuals: a goal's terms, and rules on designs, as intervals for values, one row each design."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.routines.constraints.rules import Rules
from genopt.terms import DIRECTIONS


@dataclass(frozen=True)
class Wanted:
    """Terms of a goal, and rules on designs, as intervals of T values for each of N designs.

    Inequalities end a little inside, so that a solver's last rounding does not break them.

    Args:
        index: which value each term is of (T,).
        low: lower ends (N, T), -inf for none.
        high: upper ends (N, T), inf for none.
        unit: width of the values (T,), the unit of a miss.
        weight: of each term (T,).
        wish: columns to be minimised (D,).
        slope: their weight by unit, negative for what is to be maximised (D,).
    """

    index: Tensor
    low: Tensor
    high: Tensor
    unit: Tensor
    weight: Tensor
    wish: Tensor
    slope: Tensor

    @classmethod
    def of(
        cls, goal: Goal, rows: Tensor, rules: Rules | None = None, margin: float = 1e-8
    ) -> Wanted:
        """Read a goal.

        Args:
            goal: what is wanted, B goals.
            rows: the goal of each design (N,).
            rules: rules that every design keeps.
            margin: how far inside inequalities end, in units of a miss.

        Returns:
            What is wanted of each design.

        Raises:
            GenoptError: if the goal wants a class, which has no slope.
        """
        index, low, high, weight = [], [], [], []
        wish, slope = [], []
        wide = torch.full((len(rows),), torch.inf, dtype=torch.float64)
        for term in goal.terms:
            unit = float(goal.scale[term.index])
            if term.kind == "label":
                raise GenoptError(
                    f"goal.{term.column}: a class has no slope to follow: name numeric properties, "
                    "or use routine=condition, generate or optimize_latent"
                )
            if term.kind in DIRECTIONS:
                wish.append(term.index)
                slope.append((1.0 if term.kind == "min" else -1.0) * term.weight / unit)
                continue
            value = _spread(term.value, rows)
            upper = _spread(term.upper, rows)
            inside = margin * unit
            ends = {
                "equals": (value, value),
                "at_least": (value + inside, wide),
                "at_most": (-wide, value - inside),
                "between": _narrowed(value, upper, inside),
            }
            index.append(term.index)
            low.append(ends[term.kind][0])
            high.append(ends[term.kind][1])
            weight.append(term.weight)
        units = goal.scale[torch.tensor(index, dtype=torch.long)]
        if rules is not None:
            count = len(rules.names)
            index += [goal.y_space.dim + i for i in range(count)]
            inside_rules = margin * rules.scale
            for equality, end in zip(rules.equality.tolist(), inside_rules.tolist(), strict=True):
                low.append(torch.zeros_like(wide) if equality else -wide)
                high.append(torch.zeros_like(wide) if equality else torch.full_like(wide, -end))
            weight += [1.0] * count
            units = torch.cat([units, rules.scale])
        empty = wide.new_empty(len(rows), 0)
        total = sum(abs(s) for s in slope) and len(slope)
        return cls(
            torch.tensor(index, dtype=torch.long),
            torch.stack(low, -1) if low else empty,
            torch.stack(high, -1) if high else empty,
            units,
            torch.tensor(weight, dtype=torch.float64),
            torch.tensor(wish, dtype=torch.long),
            torch.tensor(slope, dtype=torch.float64) / max(total, 1),
        )

    @property
    def wishes(self) -> bool:
        """Whether something is to be minimised or maximised."""
        return len(self.wish) > 0

    def take(self, rows: Tensor) -> Wanted:
        """What is wanted of some designs.

        Args:
            rows: their numbers (M,).

        Returns:
            The same for M designs.
        """
        return replace(self, low=self.low[rows], high=self.high[rows])

    def miss(self, values: Tensor) -> Tensor:
        """How far values are from their intervals, in units.

        Args:
            values: (N, K).

        Returns:
            Misses (N, T): zero inside, signed outside.
        """
        found = values[:, self.index]
        nearest = torch.minimum(torch.maximum(found, self.low), self.high)
        return (found - nearest) / self.unit

    def residual(self, values: Tensor) -> Tensor:
        """The misses, weighted: the sum of their squares is what least squares minimise.

        Args:
            values: (N, K).

        Returns:
            Residuals (N, T).
        """
        return self.miss(values) * self.weight.sqrt()

    def residual_slope(self, values: Tensor, slopes: Tensor) -> Tensor:
        """The derivative of the residuals.

        Args:
            values: (N, K).
            slopes: derivatives of the values (N, K, P).

        Returns:
            Derivatives (N, T, P): zero where a term holds.
        """
        found = values[:, self.index]
        outside = (found < self.low) | (found > self.high) | (self.low == self.high)
        factor = outside * (self.weight.sqrt() / self.unit)
        return slopes[:, self.index] * factor[..., None]

    def largest(self, values: Tensor) -> Tensor:
        """The largest miss of each design.

        Args:
            values: (N, K).

        Returns:
            (N,), inf where a value is missing.
        """
        if not len(self.index):
            return torch.zeros(len(values), dtype=torch.float64)
        miss = self.miss(values).abs().amax(-1)
        return torch.where(torch.isnan(miss), torch.inf, miss)

    def objective(self, values: Tensor) -> Tensor:
        """What is minimised: the wished columns in units of their widths.

        Args:
            values: (N, K).

        Returns:
            (N,); zero without wishes.
        """
        return (values[:, self.wish] * self.slope).sum(-1)


def _spread(value: Tensor | None, rows: Tensor) -> Tensor:
    """A term's values (B,) for each design (N,)."""
    if value is None:
        return torch.zeros(len(rows), dtype=torch.float64)
    return value[rows] if value.numel() > 1 else value.expand(len(rows))


def _narrowed(low: Tensor, high: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """An interval without its margins; its middle where it is not wider than they are."""
    inside = torch.minimum(torch.full_like(low, margin), 0.5 * (high - low).clamp_min(0.0))
    return low + inside, high - inside
