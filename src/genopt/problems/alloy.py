"""Alloy: the composition of an iron-nickel-chromium alloy with a wanted strength and melting point.

The fractions form a simplex, so two properties fix the design. Not every pair can be had: an honest
model says so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genopt.problems.base import Answer, Problem
from genopt.problems.roots import simple_roots
from genopt.space import Space, Variable

_ELEMENTS = ("Fe", "Ni", "Cr")
# pairs (Y, Tm) that no composition has
INFEASIBLE_TARGETS = ((500.0, 1850.0), (250.0, 1900.0))


class Alloy(Problem):
    """Fractions of Fe, Ni and Cr from yield strength Y and melting point Tm.

    Y = 200 + 400 Ni + 150 Cr + 100 Fe Ni + 50 Ni Cr and Tm = 1800 - 50 Ni + 100 Cr + 20 Fe Cr. The
    default target (350, 1800) has one answer; (500, 1850) and (250, 1900) have none.

    Args:
        strength: the wanted Y in MPa.
        melting_point: the wanted Tm in K.
    """

    def __init__(self, strength: float = 350.0, melting_point: float = 1800.0) -> None:
        super().__init__(
            "alloy",
            Space(tuple(Variable(name, 0.0, 1.0) for name in _ELEMENTS), (_ELEMENTS,)),
            # pure iron is the weakest and pure nickel the strongest alloy; Tm: pure Ni, pure Cr
            Space(
                (Variable("Y", 200.0, 600.0, "MPa"), Variable("Tm", 1750.0, 1900.0, "K")),
            ),
            {
                "Y": {"equals": strength, "tolerance": 4.0},
                "Tm": {"equals": melting_point, "tolerance": 1.5},
            },
            default_rows=2000,
            answers=_answers(strength, melting_point),
            description="Composition of an Fe-Ni-Cr alloy with a wanted strength and melting.",
            citation="Alves and Kitchin, Generative approaches to optimization (2025)",
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The two properties.

        Args:
            x: fractions (..., 3).

        Returns:
            Yield strengths and melting points (..., 2).
        """
        return _properties(*self.columns(x))


def _properties(iron: Tensor, nickel: Tensor, chromium: Tensor) -> Tensor:
    strength = (
        200.0 + 400.0 * nickel + 150.0 * chromium + 100.0 * iron * nickel + 50.0 * nickel * chromium
    )
    melting = 1800.0 - 50.0 * nickel + 100.0 * chromium + 20.0 * iron * chromium
    return torch.stack([strength, melting], -1)


def _answers(strength: float, melting_point: float) -> tuple[Answer, ...]:
    """All compositions with both properties: Tm gives Ni as a function of Cr, Y leaves one root."""

    def composition(chromium: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        excess = 1800.0 - melting_point + 120.0 * chromium - 20.0 * chromium**2
        nickel = excess / (50.0 + 20.0 * chromium)
        return 1.0 - nickel - chromium, nickel, chromium

    def miss(chromium: Tensor) -> Tensor:
        return _properties(*composition(chromium))[..., 0] - strength

    x = torch.stack(composition(simple_roots(miss, 0.0, 1.0)), -1)
    x = x[(x >= 0.0).all(-1)]
    y = torch.tensor([strength, melting_point], dtype=torch.float64)
    labels = [", ".join(f"{n} {v:.3f}" for n, v in zip(_ELEMENTS, row, strict=True)) for row in x]
    shares = _shares(x)
    return tuple(
        Answer(row, y, share, label) for row, share, label in zip(x, shares, labels, strict=True)
    )


def _shares(x: Tensor) -> list[float]:
    """Probability mass at each composition: 1 / abs det dy/d(Ni, Cr), for a uniform simplex.

    Args:
        x: compositions (R, 3).

    Returns:
        Shares that sum to one.
    """
    masses = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(
            lambda free: _properties(1.0 - free.sum(), free[0], free[1]), row[1:].clone()
        )
        masses.append(1.0 / abs(float(torch.linalg.det(jacobian))))
    return [mass / sum(masses) for mass in masses]
