"""`condition` and `generate`: which targets are asked for, and what the candidates claim."""

import pytest
import torch

from genopt import Candidates, GenoptError, Goal, Mixture, Space, Table, Variable
from genopt.routines.sample import condition, generate
from genopt.routines.targets import reachable_targets
from genopt.routines.verify import verify

X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
Y = Space.of(s=(0.0, 2.0), d=(-1.0, 1.0))


def linear_table(n: int = 400) -> Table:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Table(x, torch.stack([x.sum(1), x[:, 0] - x[:, 1]], 1), X, Y)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    table = linear_table()
    return Mixture(X, Y, max_components=1).fit(table.x, table.y)


class Echo:
    """A conditional model that returns the sum it was asked for, in equal parts."""

    x_space, y_space = X, Y

    def fit(self, x, y):
        return self

    def sample(self, y, n, generator=None):
        half = (y[:, :1] / 2).clamp(0, 1).nan_to_num(0.25)
        return half[:, None].expand(-1, n, 2)

    def log_prob(self, x, y):
        return torch.zeros(len(x))

    def ood_score(self, y):
        return torch.arange(len(y), dtype=torch.float64)


def test_exact_goals_are_asked_for_as_they_are():
    goal = Goal({"s": [0.5, 1.5]}, X, Y)
    targets = reachable_targets(goal, None, 8)
    assert targets.shape == (2, 1, 2)
    assert targets[:, 0, 0].tolist() == [0.5, 1.5]
    assert bool(targets[..., 1].isnan().all())


def test_open_goals_take_the_values_of_the_best_rows():
    table = linear_table()
    goal = Goal({"s": "max", "d": {"equals": 0.25, "tolerance": 0.05}}, X, Y)
    targets = reachable_targets(goal, table, 3)[0]
    # the wish is granted among the rows that hold the value
    near = table.y[(table.y[:, 1] - 0.25).abs() <= 0.05, 0].sort(descending=True).values
    assert set(targets[:, 0].tolist()) <= set(near.tolist())
    assert float(targets[:, 0].min()) > float(near[2]) - 0.15
    assert targets[:, 1].tolist() == [0.25] * 3
    with pytest.raises(GenoptError, match="give table="):
        reachable_targets(goal, None, 3)
    empty = Table(table.x, torch.full_like(table.y, torch.nan), X, Y)
    with pytest.raises(GenoptError, match="no row of the table has values for all of s, d"):
        reachable_targets(goal, empty, 3)


def test_an_affine_problem_is_solved_by_one_gaussian(mixture):
    # s = a + b and d = a - b have the single answer a = .7, b = .4
    found = condition(mixture, Goal({"s": 1.1, "d": 0.3}, X, Y), samples=200)
    torch.testing.assert_close(
        found.x[0].mean(0), torch.tensor([0.7, 0.4]).double(), atol=5e-3, rtol=0
    )
    assert float(found.x[0].std(0).max()) < 5e-3
    torch.testing.assert_close(
        found.y_predicted[0].mean(0), torch.tensor([1.1, 0.3]).double(), atol=5e-3, rtol=0
    )
    assert found.log_density is not None
    assert found.shape == (1, 200)


def test_fixed_columns_are_conditioned_on(mixture):
    goal = Goal({"s": [0.6, 1.2], "a": 0.25}, X, Y)
    found = condition(mixture, goal, samples=50)
    assert found.shape == (2, 50)
    assert bool((found.x[..., 0] == 0.25).all())
    torch.testing.assert_close(
        found.x[..., 1].mean(1), torch.tensor([0.35, 0.95]).double(), atol=0.02, rtol=0
    )
    with pytest.raises(GenoptError, match="cannot hold design columns fixed"):
        generate(Echo(), goal, samples=5)


def test_without_a_judge_a_design_claims_its_target():
    found = generate(Echo(), Goal({"s": [0.4, 1.0]}, X, Y), samples=3)
    assert found.y_predicted[..., 0].tolist() == [[0.4] * 3, [1.0] * 3]
    assert bool(found.y_predicted[..., 1].isnan().all())
    assert found.ood is not None
    assert found.ood.tolist() == [[0.0] * 3, [1.0] * 3]


def test_a_judge_ranks_the_designs_of_many_targets(mixture):
    table = linear_table()
    found = generate(
        Echo(), Goal({"s": "max"}, X, Y), table=table, judge=mixture, samples=40, targets=10
    )
    assert found.shape == (1, 40)
    best = found.best()
    assert float(best.x.sum()) == pytest.approx(float(table.y[:, 0].max()), abs=1e-6)
    torch.testing.assert_close(found.y_predicted, mixture.predict_y(found.x))


def test_trajectories_are_refused_where_there_are_none():
    with pytest.raises(GenoptError, match="Echo has no trajectory"):
        generate(Echo(), Goal({"s": 0.4}, X, Y), trajectory=True)
    with pytest.raises(GenoptError, match="samples=0"):
        generate(Echo(), Goal({"s": 0.4}, X, Y), samples=0)


def test_verification_asks_the_simulator():
    from genopt.problems.measured import Photostability
    from genopt.problems.plug_flow import PlugFlow

    problem = PlugFlow()
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    x = problem.design(6)[None]
    claims = torch.zeros(1, 6, 2, dtype=torch.float64)
    checked = verify(Candidates.from_claims(goal, x, claims), problem)
    torch.testing.assert_close(checked.y_verified[0], problem.simulate(x[0]))
    films = Photostability()
    goal = Goal(films.default_goal, films.x_space, films.y_space)
    one = Candidates.from_claims(goal, films.table().x[None, :2], claims[:, :2])
    assert bool(verify(one, films).y_verified.isnan().all())


def test_classes_can_be_asked_for_and_held():
    space = Space((Variable("a", 0, 1), Variable("k", labels=("u", "v"), kind="categorical")))
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(300, 2, generator=rng, dtype=torch.float64)
    x[:, 1] = x[:, 1].round()
    y = Space.of(c=(0.0, 2.0))
    model = Mixture(space, y, max_components=4).fit(x, x.sum(1, keepdim=True))
    found = condition(model, Goal({"c": 1.5, "k": "v"}, space, y), samples=60)
    assert bool((found.x[..., 1] == 1).all())
    assert float(found.x[..., 0].mean()) == pytest.approx(0.5, abs=0.05)
