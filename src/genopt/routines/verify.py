"""Verification: what the simulator says of candidates, beside what the model claimed."""

from __future__ import annotations

from genopt.candidates import Candidates
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator


def verify(candidates: Candidates, problem: Problem) -> Candidates:
    """Candidates with the simulator's answers.

    Args:
        candidates: designs (B, R, P).
        problem: whose simulator is asked.

    Returns:
        The candidates with ``y_verified``, NaN where a goal has no designs or the simulator
        fails; unchanged where the problem has no simulator or the routine has asked it already.
    """
    if not problem.has_simulator or candidates.verified:
        return candidates
    return candidates.verified_by(Simulator(problem)(candidates.x))
