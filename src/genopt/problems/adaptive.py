"""Sampling where it matters: rows of a simulator close to what a goal turns on, with weights.

The rows come in rounds. The first is the problem's own design; each later one is drawn from the
same prior, but in proportion to how close the properties are expected to be. What the rows are too
dense by is known exactly, so a weight for each row keeps what is learned from them unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genopt.data.closeness import Closeness
from genopt.data.interpolation import Interpolation
from genopt.data.table import Table
from genopt.data.thinning import thin
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.problems.simulator import Simulator
from genopt.problems.stochastic import StochasticProblem

UNBIASED = ("conditional", "joint")
_POOL, _POOL_PER_ROW, _MOST_POOL = 16_384, 32, 131_072
# the pools' own streams, far from the seeds of a user's tables
_STREAM = 1_000_003


@dataclass(frozen=True)
class Round:
    """How much denser than the prior one round was drawn.

    Args:
        closeness: what the round was drawn in proportion to; None for the prior itself.
        expected: the prior's mean closeness.
        plain: the share that was drawn from the prior all the same.
    """

    closeness: Closeness | None = None
    expected: float = 1.0
    plain: float = 1.0

    def density(self, y: Tensor) -> Tensor:
        """Density of the proposal over that of the prior.

        Args:
            y: properties (N, K) that the designs have or were expected to have.

        Returns:
            Ratios (N,).
        """
        if self.closeness is None:
            return torch.ones(len(y), dtype=torch.float64)
        return self.plain + (1.0 - self.plain) * self.closeness(y) / self.expected


def adaptive_table(
    problem: Problem,
    goal: Goal,
    n: int | None = None,
    *,
    rounds: int = 3,
    share: float = 0.005,
    plain: float = 0.3,
    unbiased: str = "conditional",
    seed: int = 0,
) -> Table:
    """Rows of a simulator that are dense where a goal is decided, with a weight for each row.

    After the first round, radial basis functions between the rows guess y of a large pool of the
    problem's design, and the pool is thinned to n / rounds designs with the density ``plain`` + (1
    - ``plain``) c / E[c], c the closeness to the goal: to its wanted values, to the best rows where
    it has a wish, to the boundaries of its limits. Each round takes in a smaller share of the
    prior. The rounds together are one mixture of proposals (Veach and Guibas 1995, doi
    10.1145/218380.218498; defensive by its plain share, Hesterberg 1995, doi
    10.1080/00401706.1995.10484303).

    Args:
        problem: whose simulator is asked.
        goal: what the rows are to be close to.
        n: rows, simulator calls too; None for the problem's own number.
        rounds: rounds, the first one included.
        share: share of the prior that the last round is drawn close to; earlier ones take more.
        plain: share of each later round that is drawn from the prior all the same; no weight is
            larger than rounds / (1 + (rounds - 1) plain), before they are brought to a mean of one.
        unbiased: ``conditional``, for models of designs given properties: weights that differ from
            one only as far as y was guessed wrongly, so that the rows close to the goal keep their
            weight; ``joint``, for the density of designs and properties together: prior over
            proposal density.
        seed: seed of all rounds.

    Returns:
        The Table, its weights with a mean of one.

    Raises:
        GenoptError: if the problem has no simulator or makes its own tables, a number is out of
            range, or there are too few rows for the rounds.
        UnknownNameError: if ``unbiased`` is another word.

    Example:
        >>> from genopt.problems import PengRobinson
        >>> problem = PengRobinson()
        >>> goal = Goal({"r": 0.0}, problem.x_space, problem.y_space)
        >>> rows = adaptive_table(problem, goal, 120)
        >>> bool((rows.y.abs() < 0.003).double().mean() > 0.5)
        True
    """
    sizes = _checked(problem, n, rounds, share, plain, unbiased)
    x = problem.design(sizes[0], seed).to(torch.float64)
    simulate = Simulator(problem)

    def asked(designs: Tensor, number: int) -> Tensor:
        if isinstance(problem, StochasticProblem):
            return problem.observe(designs, seed + _STREAM * number)
        return simulate(designs)

    table = _kept(problem, x, asked(x, 0))
    drawn, guessed = [Round()], []
    for number, size in enumerate(sizes[1:], 1):
        guess = Interpolation(table)
        count = min(max(_POOL, _POOL_PER_ROW * size), _MOST_POOL)
        pool = problem.design(count, seed + _STREAM * number).to(torch.float64)
        expected = guess(pool)
        # from wide to narrow: the share of each round is the same fraction of the one before
        part = share ** (number / (rounds - 1))
        closeness = Closeness.of(goal, table.y, expected, part)
        mean = float(closeness(expected).mean())
        this = Round(closeness, mean, plain)
        new = pool[thin(pool, this.density(expected), size, problem.x_space, seed + number)]
        drawn.append(this)
        guessed.append(guess)
        table = _joined(table, _kept(problem, new, asked(new, number)))
    return replace(table, weight=_weights(table, drawn, guessed, sizes, unbiased))


def _weights(
    table: Table,
    drawn: Sequence[Round],
    guessed: Sequence[Interpolation],
    sizes: Sequence[int],
    unbiased: str,
) -> Tensor:
    """Prior density over that of all rounds together, by what each round knew when it drew."""
    proposal = drawn[0].density(table.y) * sizes[0]
    tilt = proposal.clone()
    for this, guess, size in zip(drawn[1:], guessed, sizes[1:], strict=True):
        proposal += size * this.density(guess(table.x))
        # any function of y alone leaves the designs given y as they are
        tilt += size * this.density(table.y)
    weight = 1.0 / proposal if unbiased == "joint" else tilt / proposal
    return weight / weight.mean()


def _kept(problem: Problem, x: Tensor, y: Tensor) -> Table:
    some = torch.isfinite(y).any(1)
    return Table(x[some], y[some], problem.x_space, problem.y_space)


def _joined(first: Table, second: Table) -> Table:
    x, y = torch.cat([first.x, second.x]), torch.cat([first.y, second.y])
    return Table(x, y, first.x_space, first.y_space)


def _checked(
    problem: Problem, n: int | None, rounds: int, share: float, plain: float, unbiased: str
) -> list[int]:
    """Rows of each round."""
    if not problem.has_simulator:
        raise GenoptError(
            f"problem {problem.name!r} has measured data only: data=adaptive needs a simulator"
        )
    if type(problem).table not in (Problem.table, StochasticProblem.table):
        raise GenoptError(
            f"problem {problem.name!r} makes its own table, so no rows can be added close to the "
            "goal: use data=default"
        )
    if unbiased not in UNBIASED:
        raise UnknownNameError("data.unbiased", str(unbiased), UNBIASED)
    if rounds < 2:
        raise GenoptError(f"data.rounds must be at least 2, got {rounds}; data=default has one")
    if not 0.0 < share < 1.0 or not 0.0 < plain <= 1.0:
        raise GenoptError(
            f"data.share={share:g} must lie inside (0, 1) and data.plain={plain:g} in (0, 1]"
        )
    rows = problem.default_rows if n is None else n
    least = rounds * (problem.x_space.encoded_dim + 2)
    if rows < least:
        raise GenoptError(
            f"data.rows={rows} are too few for {rounds} rounds of {problem.x_space.dim} design "
            f"columns: at least {least}, or lower data.rounds"
        )
    later = rows // rounds
    return [rows - later * (rounds - 1), *[later] * (rounds - 1)]
