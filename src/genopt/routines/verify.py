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
        The candidates with ``y_verified``, NaN where a goal has no designs; unchanged where the
        problem has no simulator.
    """
    if not problem.has_simulator:
        return candidates
    x = candidates.x
    there = torch.isfinite(x).all(-1)
    with torch.no_grad():
        if bool(there.all()):
            return candidates.verified_by(problem.simulate(x))
        y = torch.full_like(candidates.y_verified, torch.nan)
        if bool(there.any()):
            y[there] = problem.simulate(x[there]).to(y)
    return candidates.verified_by(y)
