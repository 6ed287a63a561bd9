"""Constraints through the routines: what a user of `condition` and `generate` gets and is told."""

from functools import partial

import pytest
import torch

from genopt import (
    Candidates,
    ConditionalFlow,
    Constraint,
    GenoptError,
    Goal,
    Mixture,
    Space,
    Table,
)
from genopt.analysis.metrics import candidate_scores
from genopt.analysis.summary import verdict
from genopt.routines.checks import check_routine
from genopt.routines.sample import condition, generate

X = Space.of(a=(0.0, 1.0), b=(0.0, 1.0), c=(0.0, 1.0))
Y = Space.of(s=(0.0, 2.0))


@pytest.fixture(scope="module")
def table() -> Table:
    x = torch.rand(600, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Table(x, x[:, :2].sum(1, keepdim=True), X, Y)


@pytest.fixture(scope="module")
def mixture(table) -> Mixture:
    return Mixture(X, Y, max_components=1).fit(table.x, table.y)


class Carried:
    """p(x | s) of a and b uniform along a + b = s and c uniform, carried from normal noise."""

    x_space, y_space = X, Y

    class transform:
        dim = 2

    def fit(self, x, y):
        return self

    def transport(self, noise, y, fixed=None):
        share = torch.special.ndtr(noise.double())
        s = y[:, :1]
        low, high = (s - 1).clamp_min(0.0), s.clamp_max(1.0)
        a = low + share[..., 0] * (high - low)
        return torch.stack([a, s - a, share[..., 1]], -1)

    def sample(self, y, n, generator=None):
        return self.transport(torch.randn(len(y), n, 2, generator=generator), y)

    def log_prob(self, x, y):
        return torch.zeros(len(x))

    def ood_score(self, y):
        return torch.zeros(len(y), dtype=torch.float64)


def check(found: Candidates) -> torch.Tensor:
    """The designs, after what must hold of all of them."""
    assert bool(torch.isfinite(found.x).all())
    space = found.x_space
    assert bool(((found.x >= space.lower) & (found.x <= space.upper)).all())
    assert bool(space.contains(found.x, 1e-9).all())
    return found.x


def test_designs_of_a_mixture_keep_their_rules(mixture):
    rules = ["c <= 0.5 * a", "a * c == 0.05"]
    found = condition(mixture, Goal({"s": [0.8, 1.2]}, X, Y), samples=300, constraints=rules)
    x = check(found)
    assert found.shape == (2, 300)
    assert float((x[..., 0] * x[..., 2] - 0.05).abs().max()) <= 1e-8
    assert float((x[..., 2] - 0.5 * x[..., 0]).max()) <= 1e-8
    # the goal is still met: designs move along a + b = s, not away from it
    miss = x[..., :2].sum(-1) - torch.tensor([[0.8], [1.2]]).double()
    assert float(miss.abs().quantile(0.9)) < 0.02
    report = found.header["constraints"]
    assert report["rules"] == rules
    assert report["largest_violation"] <= 1e-8
    assert found.log_density is not None
    pairs = torch.tensor([0.8, 1.2], dtype=torch.float64).repeat_interleave(300)[:, None]
    torch.testing.assert_close(
        found.log_density.flatten(), mixture.log_prob(x.flatten(0, 1), pairs)
    )


def test_an_inequality_leaves_the_rest_of_the_law_alone(mixture):
    goal = Goal({"s": 1.0}, X, Y)
    plain = condition(mixture, goal, samples=20_000, seed=5).x[0]
    kept = condition(mixture, goal, samples=4_000, constraints="c <= 0.3").x[0]
    expected = plain[plain[:, 2] <= 0.3]
    torch.testing.assert_close(kept.mean(0), expected.mean(0), atol=0.015, rtol=0)
    torch.testing.assert_close(kept.std(0), expected.std(0), atol=0.015, rtol=0)


def test_held_columns_and_regions_stay_what_they_are(mixture):
    goal = Goal({"s": {"at_least": 1.3}, "c": 0.25}, X, Y)
    found = condition(mixture, goal, samples=200, constraints=["a - b == 0.1"])
    x = check(found)
    assert torch.equal(x[..., 2], torch.full_like(x[..., 2], 0.25))
    assert float((x[..., 0] - x[..., 1] - 0.1).abs().max()) <= 1e-8
    assert float(x[..., :2].sum(-1).min()) > 1.25


def test_a_flow_is_asked_through_its_noise():
    goal = Goal({"s": [0.6, 1.5]}, X, Y)
    found = generate(
        Carried(), goal, samples=400, constraints=["b == 2 * a", "c >= 0.99"], constraint_tries=50
    )
    x = check(found)
    assert found.header["constraints"]["method"] == "smc"
    assert float((x[..., 1] - 2 * x[..., 0]).abs().max()) <= 1e-8
    assert float(x[..., 2].min()) >= 0.99 - 1e-8
    # the only designs that reach s with b = 2 a
    torch.testing.assert_close(
        x[..., 0], torch.tensor([[0.2], [0.5]]).double().expand(2, 400), atol=0.02, rtol=0
    )


class Judge:
    """Predicts the sum."""

    x_space, y_space = X, Y

    def predict_y(self, x):
        return x[..., :2].sum(-1, keepdim=True)


def test_the_best_design_is_the_judges():
    goal = Goal({"s": [0.6, 1.5]}, X, Y)
    found = generate(
        Carried(), goal, judge=Judge(), samples=10, constraints="a <= 0.4",
        constraint_method="gradient",
    )  # fmt: skip
    x = check(found)
    assert float(x[..., 0].max()) <= 0.4 + 1e-8
    assert found.header["constraints"]["method"] == "gradient"
    # b <= 1, so at most 1.4 of the second goal is left
    torch.testing.assert_close(
        found.y_predicted[..., 0], torch.tensor([[0.6], [1.4]]).double().expand(2, 10),
        atol=0.02, rtol=0,
    )  # fmt: skip


def test_a_goal_without_a_design_does_not_cost_the_others_theirs():
    # designs of the second goal have a + b = 1.9, so none has a <= .5
    rule = Constraint(lambda x: (x[..., 0] > 0.5).to(x), kind="equality", differentiable=False)
    goal = Goal({"s": [0.6, 1.9]}, X, Y)
    with pytest.warns(UserWarning, match="1 of 2 goals have no design .*: goals 1"):
        found = generate(Carried(), goal, samples=50, constraints=rule, constraint_tries=5)
    assert found.shape == (2, 50)
    assert float(found.x[0, :, 0].max()) <= 0.5
    assert bool(found.x[1].isnan().all())
    assert not bool(found.feasible[1].any())
    assert found.header["constraints"]["goals_without_design"] == 1
    assert len(found.to_frame()) == 100
    scores = candidate_scores(found, goal)
    assert scores["inside_space"] == 1.0
    assert scores["constraints/goals_without_design"] == 1.0
    assert "all designs keep the constraints" in verdict(found, goal, scores)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"constraints": ["a + b <= 0.5", "c <= 0.4", "a - 0.2 >= 0.6"]},
         r"'a \+ b <= 0.5' and 'a - 0.2 >= 0.6' \(a in \[0, 1\], b in \[0, 1\]; c"),
        ({"constraints": ["c >= 0.5"]}, "no design keeps 'c >= 0.5' .*c fixed at 0.25"),
        ({"constraints": ["d <= 1"]}, "unknown column in constraint 'd <= 1'"),
        ({"constraints": ["sqrt(a - 2) <= 1"]}, "NaN for every design"),
        ({"constraint_method": "smcc"}, "did you mean 'smc'"),
        ({"constraints": ["a <= 0.5"], "constraint_method": "smc"}, "use model=flow"),
        ({"constraints": ["a <= 0.5"], "constraint_tries": 0}, "constraint_tries must be at"),
        ({"constraints": {"function": "torch.linalg.norm", "kind": "equality"}}, "one number"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_before_training(options, words):
    goal = Goal({"s": 1.0, "c": 0.25}, X, Y)
    with pytest.raises(GenoptError, match=words):
        check_routine(partial(condition, **options), Mixture(X, Y), goal)


def test_curved_rules_that_nothing_seems_to_keep_are_warned_of():
    goal = Goal({"s": 1.0}, X, Y)
    options = {"constraints": ["a**2 + b**2 + c**2 >= 3.1"]}
    with pytest.warns(UserWarning, match="it may be impossible"):
        check_routine(partial(condition, **options), Mixture(X, Y), goal)


def test_what_no_draw_keeps_ends_with_a_report(mixture):
    rule = Constraint(lambda x: x[..., 0] ** 2 + 1.0, kind="inequality", name="below zero")
    with pytest.raises(GenoptError, match=r"0 % of .* draws keep 'below zero', the smallest"):
        condition(mixture, Goal({"s": 1.0}, X, Y), samples=20, constraints=[rule])


def test_a_plane_of_a_mixture_is_conditioned_on_exactly():
    # three touching components and a plane between two of them
    generator = torch.Generator().manual_seed(3)
    centre = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.6, 0.3], [0.7, 0.2, 0.7]]).double()
    which = torch.randint(0, 3, (4_000,), generator=generator)
    x = centre[which] + 0.05 * torch.randn(4_000, 3, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(4_000, 1, generator=generator, dtype=torch.float64)
    model = Mixture(X, Y, max_components=3, min_components=3).fit(x, x[:, :1] + x[:, 2:] + noise)
    goal = Goal({"s": 1.0}, X, Y)
    found = condition(model, goal, samples=4_000, constraints="a + b - c == 0.65")
    assert found.header["constraints"]["method"] == "exact+select"
    assert found.header["constraints"]["acceptance"] == 1.0
    kept = check(found)[0]
    assert float((kept[:, 0] + kept[:, 1] - kept[:, 2] - 0.65).abs().max()) <= 1e-8
    # plain draws in a thin shell say the same
    plain = model.sample(torch.tensor([[1.0]]).double(), 400_000)[0]
    near = plain[(plain[:, 0] + plain[:, 1] - plain[:, 2] - 0.65).abs() < 0.01]
    assert len(near) > 2_000
    torch.testing.assert_close(kept.mean(0), near.mean(0), atol=0.012, rtol=0)
    torch.testing.assert_close(kept.std(0), near.std(0), atol=0.012, rtol=0)


def test_planes_with_held_columns_and_fractions():
    space = Space(X.variables, (("a", "b", "c"),))
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(800, 3, generator=generator, dtype=torch.float64)
    x = x / x.sum(1, keepdim=True)
    model = Mixture(space, Y, max_components=2).fit(x, x[:, :1] + 0.5 * x[:, 1:2])
    goal = Goal({"s": [0.5, 0.55]}, space, Y)
    found = condition(model, goal, samples=100, constraints=["c == 2 * b"])
    kept = check(found)
    assert found.header["constraints"]["method"] == "exact+select"
    torch.testing.assert_close(kept[..., 2], 2 * kept[..., 1], atol=1e-8, rtol=0)
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 100).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("sampler", ["midpoint", "sde"])
def test_a_flows_ways_end_at_the_designs(table, sampler):
    flow = ConditionalFlow(
        X, Y, network={"kind": "adaln", "width": 8, "depth": 1}, epochs=1, sampler=sampler,
        given_x=0.5,
    )  # fmt: skip
    flow.fit(table.x, table.y)
    goal = Goal({"s": [0.9, 1.1], "c": 0.5}, X, Y)
    rules = ["a * b == 0.2", "a >= b"]
    found = generate(flow, goal, samples=30, trajectory=True, constraints=rules)
    x = check(found)
    assert float((x[..., 0] * x[..., 1] - 0.2).abs().max()) <= 1e-8
    assert float((x[..., 1] - x[..., 0]).max()) <= 1e-8
    assert torch.equal(x[..., 2], torch.full_like(x[..., 2], 0.5))
    assert found.trajectory is not None
    assert torch.equal(found.trajectory[..., -1, :], x)
    # the step before the last is the design before it was moved onto the rules
    assert float((found.trajectory[..., -2, :] - x).abs().max()) < 0.2
