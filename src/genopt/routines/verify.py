"""Verification: what the simulator says of candidates, beside what the model claimed."""

from __future__ import annotations

import torch

from genopt.candidates import Candidates
from genopt.problems.base import Problem


def verify(candidates: Candidates, problem: Problem) -> Candidates:
    """Candidates with the simulator's answers.

    Args:
        candidates: designs (B, R, P).
        problem: whose simulator is asked.

    Returns:
        The candidates with ``y_verified``; unchanged where the problem has no simulator.
    """
    if not problem.has_simulator:
        return candidates
    with torch.no_grad():
        return candidates.verified_by(problem.simulate(candidates.x))
