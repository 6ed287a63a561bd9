"""Peng-Robinson: the compressibility factors of a fluid, as an inverse problem.

They are three roots of one cubic. The learner sees points (Z, r(Z)) and is asked for the Z of r =
0. Two of the three answers lie close together and the residual between them stays tiny, so a coarse
model merges them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from genopt.data.sampling import sample_space
from genopt.problems.base import Answer, Problem
from genopt.space import Space, Variable

_GAS_CONSTANT = 8.314
_Z_RANGE = (0.01, 0.99)


class PengRobinson(Problem):
    """Roots Z of r(Z) = Z^3 - (1-B) Z^2 + (A - 3 B^2 - 2 B) Z - (A B - B^2 - B^3).

    The default fluid is propane.     Here A = a P / (R T)^2 and B = b P / (R T), with b = .07780 R
    Tc / Pc, a = .45724 R^2 Tc^2 / Pc alpha, alpha = [1 + kappa (1 - sqrt(T/Tc))]^2 and kappa =
    .37464 + 1.54226 w - .26992 w^2. When Z is uniform, the probability mass at a root is
    proportional to 1 / abs r'(Z), which gives the exact weights of the answers.

    Args:
        temperature: T in K.
        pressure: P in Pa.
        critical_temperature: Tc in K.
        critical_pressure: Pc in Pa.
        acentric_factor: w.
    """

    def __init__(
        self,
        temperature: float = 300.0,
        pressure: float = 10e5,
        critical_temperature: float = 369.83,
        critical_pressure: float = 42.48e5,
        acentric_factor: float = 0.1523,
    ) -> None:
        w = acentric_factor
        thermal = _GAS_CONSTANT * temperature
        critical_thermal = _GAS_CONSTANT * critical_temperature
        self.kappa = 0.37464 + 1.54226 * w - 0.26992 * w**2
        alpha = (1.0 + self.kappa * (1.0 - math.sqrt(temperature / critical_temperature))) ** 2
        a = 0.45724 * critical_thermal**2 / critical_pressure * alpha
        b = 0.07780 * critical_thermal / critical_pressure
        self.A = a * pressure / thermal**2
        self.B = b * pressure / thermal
        self.coefficients = (
            1.0,
            -(1.0 - self.B),
            self.A - 3.0 * self.B**2 - 2.0 * self.B,
            -(self.A * self.B - self.B**2 - self.B**3),
        )
        super().__init__(
            "peng_robinson",
            Space((Variable("Z", *_Z_RANGE),)),
            Space((Variable("r", *self._residual_range()),)),
            {"r": {"equals": 0.0, "tolerance": 1e-4}},
            default_rows=2000,
            answers=self._answers(),
            description="Compressibility factors of a fluid: roots of the Peng-Robinson cubic.",
            citation=(
                "Peng and Robinson, Ind. Eng. Chem. Fundam. 15 (1976) 59; as an inverse problem: "
                "Alves and Kitchin, Generative approaches to optimization (2025)"
            ),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The residual of the cubic.

        Args:
            x: compressibility factors (..., 1).

        Returns:
            Residuals (..., 1).
        """
        (z,) = self.columns(x)
        c3, c2, c1, c0 = self.coefficients
        return (((c3 * z + c2) * z + c1) * z + c0).unsqueeze(-1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """Independent uniform points, for which the stated weights are exact.

        Args:
            n: number of points.
            seed: seed of the draw.

        Returns:
            Points (n, 1).
        """
        return sample_space(self.x_space, n, method="uniform", seed=seed)

    def _residual_range(self) -> tuple[float, float]:
        """The range of r over the range of Z: at its ends or where r' = 0."""
        turning = _real_roots(np.polyder(np.array(self.coefficients)))
        values = np.polyval(self.coefficients, [*_Z_RANGE, *turning])
        return float(values.min()), float(values.max())

    def _answers(self) -> tuple[Answer, ...]:
        coefficients = np.array(self.coefficients)
        slope = np.polyder(coefficients)
        roots = _real_roots(coefficients)
        for _ in range(3):
            # the companion matrix loses a few digits where roots are close; Newton brings them back
            roots = roots - np.polyval(coefficients, roots) / np.polyval(slope, roots)
        mass = 1.0 / np.abs(np.polyval(slope, roots))
        return tuple(
            Answer(
                torch.tensor([z], dtype=torch.float64),
                torch.zeros(1, dtype=torch.float64),
                float(share),
                f"Z = {z:.4f}",
            )
            for z, share in zip(roots, mass / mass.sum(), strict=True)
        )


def _real_roots(coefficients: np.ndarray) -> np.ndarray:
    """Real roots inside the range of Z, ascending."""
    roots = np.roots(coefficients)
    real = np.sort(roots.real[np.abs(roots.imag) < 1e-9])
    return real[(real >= _Z_RANGE[0]) & (real <= _Z_RANGE[1])]
