"""Abstaining: which targets are refused, what is left of the goal, that nothing breaks on it."""

import math
import warnings

import pytest
import torch

from genopt import Candidates, GenoptError, Goal, Mixture, Space, Table, Variable
from genopt.analysis.metrics import candidate_scores
from genopt.analysis.plots.study import draw_figures
from genopt.analysis.summary import top_frame, verdict
from genopt.problems import Problem
from genopt.routines.abstain import AbstainedWarning, answered, some_goals, threshold_of
from genopt.routines.sample import condition, generate
from genopt.routines.verify import verify

X = Space.of(a=(-2.0, 2.0), b=(-2.0, 2.0))
Y = Space.of(s=(-6.0, 6.0), q=(-2.0, 8.0))


@pytest.fixture(scope="module")
def table() -> Table:
    rng = torch.Generator().manual_seed(0)
    x = 4 * torch.rand(300, 2, generator=rng, dtype=torch.float64) - 2
    noise = 0.1 * torch.randn(300, 2, generator=rng, dtype=torch.float64)
    y = torch.stack([x[:, 0] + x[:, 1], x[:, 0] ** 2 - 0.5 * x[:, 1]], 1) + noise
    return Table(x, y, X, Y)


@pytest.fixture(scope="module")
def mixture(table) -> Mixture:
    return Mixture(X, Y, max_components=4, min_components=4, criterion="bic").fit(table.x, table.y)


def asked(model, wanted, table=None, **options) -> Candidates:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return condition(model, Goal(wanted, X, Y), table=table, samples=30, **options)


class Ring:
    """A conditional model whose score is the distance of s from zero, and which has no density."""

    x_space, y_space = X, Y

    def fit(self, x, y):
        return self

    def sample(self, y, n, generator=None):
        half = (y[:, :1] / 2).clamp(-2, 2).nan_to_num(0.0)
        return half[:, None].expand(-1, n, 2)

    def log_prob(self, x, y):
        return torch.zeros(len(x))

    def ood_score(self, y):
        return y[:, 0].abs().nan_to_num(0.0)


class Box(Problem):
    """A simulator that cannot be asked for nothing."""

    def __init__(self):
        super().__init__("box", X, Y)

    def simulate(self, x):
        assert bool(x.isfinite().all())
        return torch.stack([x.sum(-1), x[..., 0] ** 2 - 0.5 * x[..., 1]], -1)


class TestWhatIsRefused:
    def test_the_default_answers_everything(self, mixture):
        for options in ({}, {"abstain": None}, {"abstain": False}):
            found = asked(mixture, {"s": [0.0, 5.8]}, **options)
            assert bool(found.x.isfinite().all())
            assert "abstained" not in found.header

    def test_only_goals_outside_are_refused_and_the_others_are_the_same(self, mixture):
        goal = Goal({"s": [0.0, 5.8, 1.0]}, X, Y)
        with pytest.warns(AbstainedWarning, match="abstained from 1 of 3 goals: goal 1: .* s 5.8"):
            found = condition(mixture, goal, samples=30, abstain=True)
        assert found.shape == (3, 30)
        assert found.x.isnan().all(-1).all(1).tolist() == [False, True, False]
        for value in (found.y_predicted[1], found.loss[1], found.log_density[1]):
            assert bool(value.isnan().all())
        assert not bool(found.feasible[1].any())
        assert float(found.ood[1, 0]) == float(mixture.ood_score([[5.8, math.nan]]))
        assert found.goal == goal.spec
        alone = asked(mixture, {"s": [0.0, 1.0]})
        assert torch.equal(found.x[[0, 2]], alone.x)
        assert torch.equal(found.loss[[0, 2]], alone.loss)

    def test_the_header_says_which_column_and_what_is_near(self, mixture, table):
        (entry,) = asked(mixture, {"s": [0.0, 5.8]}, abstain=True).header["abstained"]
        assert (entry["goal"], entry["refused"], entry["targets"]) == (1, 1, 1)
        assert entry["columns"] == ["s"]
        assert entry["score"] > entry["threshold"] == 1.0
        assert entry["nearest"] == f"s {float(table.y[:, 0].max()):.4g}"

    def test_two_columns_that_never_go_together(self, mixture):
        # each is usual, but s = a + b = 3.4 leaves a above 1.4 and q above 0
        wanted = {"s": 3.4, "q": -0.8}
        y = torch.tensor([[3.4, -0.8], [3.4, math.nan], [math.nan, -0.8]], dtype=torch.float64)
        both, first, second = mixture.ood_score(y).tolist()
        level = 0.5 * (max(first, second) + both)
        found = asked(mixture, wanted, abstain=level)
        (entry,) = found.header["abstained"]
        assert entry["columns"] == []
        assert "together they lie outside" in entry["text"]

    def test_a_number_is_the_score_that_is_allowed(self, mixture):
        score = float(mixture.ood_score([[5.8, math.nan]]))
        assert asked(mixture, {"s": 5.8}, abstain=score * 1.01).header["abstained"] == []
        assert asked(mixture, {"s": 5.8}, abstain=score * 0.99).header["abstained"]

    def test_regions_are_judged_by_their_most_usual_values(self, mixture):
        wanted = {"s": {"at_least": [1.0, 5.8]}, "q": {"between": [[0.0, 0.0], [1.0, 1.0]]}}
        found = asked(mixture, wanted, abstain=True)
        assert found.x.isnan().all(-1).all(1).tolist() == [False, True]
        (entry,) = found.header["abstained"]
        assert entry["columns"] == ["s"]
        assert entry["asked"] == "s at least 5.8, q between 0 and 1"
        assert float(found.y_predicted[0, :, 0].median()) > 0.9

    def test_of_several_targets_only_those_outside_are_refused(self, mixture, table):
        best = table.y[:, 0].sort(descending=True).values[:8]
        scores = mixture.ood_score(torch.stack([best, torch.full_like(best, math.nan)], 1))
        level = float(scores.sort().values[3:5].mean())
        found = asked(mixture, {"s": "max"}, table=table, targets=8, abstain=level)
        assert found.shape == (1, 32)
        (entry,) = found.header["abstained"]
        assert (entry["refused"], entry["targets"]) == (4, 8)
        assert float(found.ood.max()) <= level
        # the four that are left share the designs
        assert found.ood[0].unique().numel() == 4
        assert bool(found.x.isfinite().all())

    def test_held_columns_and_classes_go_with_their_goal(self):
        space = Space((Variable("a", 0, 1), Variable("k", labels=("u", "v"), kind="categorical")))
        rng = torch.Generator().manual_seed(0)
        x = torch.rand(300, 2, generator=rng, dtype=torch.float64)
        x[:, 1] = x[:, 1].round()
        y = Space.of(c=(0.0, 9.0))
        model = Mixture(space, y, max_components=4).fit(x, x.sum(1, keepdim=True))
        goal = Goal({"c": [8.0, 1.5, 0.5], "k": ["u", "v", "u"]}, space, y)
        with pytest.warns(AbstainedWarning, match="goal 0"):
            found = condition(model, goal, samples=20, abstain=True)
        assert found.x[1:, :, 1].unique(dim=1).tolist() == [[1.0], [0.0]]
        frame = found.to_frame()
        assert frame["k"].isna().sum() == 20
        assert set(frame["k"].dropna()) == {"u", "v"}

    def test_the_flow_routine_takes_any_score(self, table):
        goal = Goal({"s": [0.5, 5.0]}, X, Y)
        with pytest.warns(AbstainedWarning, match=f"s {float(table.y[:, 0].max()):.4g}"):
            found = generate(Ring(), goal, table=table, samples=5, abstain=True)
        assert found.x.isnan().all(-1).all(1).tolist() == [False, True]
        assert found.ood.tolist() == [[0.5] * 5, [5.0] * 5]
        with pytest.warns(AbstainedWarning, match="score 5, allowed 4.5"):
            nothing = generate(Ring(), Goal({"s": 5.0}, X, Y), samples=5, abstain=4.5)
        assert bool(nothing.x.isnan().all())
        assert nothing.header["abstained"][0]["nearest"] is None

    @pytest.mark.parametrize("abstain", [0, -1.0, math.nan, math.inf, "yes", [1.0]])
    def test_a_threshold_is_checked(self, mixture, abstain):
        with pytest.raises(GenoptError, match=r"routine.abstain=.*null \(never\)"):
            asked(mixture, {"s": 1.0}, abstain=abstain)

    def test_thresholds(self):
        assert [threshold_of(v) for v in (None, False, True, 1, 0.5)] == [None, None, 1, 1, 0.5]

    def test_some_goals_of_every_kind(self):
        spec = {
            "s": {"between": [[0.0, 1.0], [2.0, 3.0]], "weight": 2.0},
            "q": {"at_least": [1.0, 2.0], "tolerance": 0.1},
            "a": [0.5, 1.0],
            "b": 0.25,
        }
        one = some_goals(Goal(spec, X, Y), [1])
        assert not one.batched
        assert str(one) == str(
            Goal(
                {
                    "s": {"between": [1.0, 3.0], "weight": 2.0},
                    "q": {"at_least": 2.0, "tolerance": 0.1},
                    "a": 1.0,
                    "b": 0.25,
                },
                X,
                Y,
            )
        )
        # two goals and an interval of two ends are no batch of each other
        both = some_goals(Goal({"s": {"between": [0.0, 1.0]}, "q": [1.0, 2.0]}, X, Y), [1])
        assert both.terms[0].upper.tolist() == [1.0]
        assert both.condition()[1] == 2.0


@pytest.fixture(scope="module")
def partly(mixture) -> Candidates:
    return asked(mixture, {"s": [5.8, 0.0, 1.0]}, abstain=True)


@pytest.fixture(scope="module")
def wholly(mixture) -> Candidates:
    return asked(mixture, {"s": 5.8}, abstain=True)


class TestDownstream:
    def test_files_keep_it(self, partly, wholly, tmp_path):
        for candidates in (partly, wholly):
            again = Candidates.load(candidates.save(tmp_path / "c"))
            assert again.header == candidates.header
            torch.testing.assert_close(again.x, candidates.x, equal_nan=True)
            assert torch.equal(again.feasible, candidates.feasible)

    def test_order_best_top_and_modes(self, partly, wholly):
        alone = partly.take(torch.arange(30).expand(3, -1))
        assert partly.order().shape == (3, 30)
        assert partly.best().x[1:].isfinite().all()
        # a goal without designs costs the others none of theirs
        assert partly.top(4).shape == (3, 4)
        assert bool(partly.top(4).x[1:].isfinite().all())
        assert partly.modes()[0] == []
        assert alone.shape == partly.shape
        assert wholly.top(4).shape == (1, 4)

    def test_the_simulator_is_asked_for_designs_only(self, partly, wholly):
        checked = verify(partly, Box())
        assert bool(checked.y_verified[0].isnan().all())
        torch.testing.assert_close(checked.y_verified[1:, :, 0], partly.x[1:].sum(-1))
        assert not verify(wholly, Box()).verified

    def test_scores_are_of_the_goals_that_were_answered(self, partly, wholly, mixture, table):
        goal = Goal(partly.goal, X, Y)
        scores = candidate_scores(verify(partly, Box()), goal, baseline=table)
        alone = verify(asked(mixture, {"s": [0.0, 1.0]}), Box())
        expected = candidate_scores(alone, Goal(alone.goal, X, Y), baseline=table)
        assert scores.pop("abstained") == pytest.approx(1 / 3)
        assert scores == pytest.approx(expected)
        none = candidate_scores(wholly, Goal(wholly.goal, X, Y), baseline=table)
        assert none == {"candidates": 0.0, "abstained": 1.0}
        assert answered(alone, goal)[0] is alone

    def test_the_summary_keeps_the_numbers_of_the_goals(self, partly, wholly, table):
        goal = Goal(partly.goal, X, Y)
        frame = top_frame(partly, table, 3)
        assert sorted(set(frame["goal"])) == [1, 2]
        assert set(frame["s_wanted"]) == {0.0, 1.0}
        words = verdict(partly, goal, candidate_scores(partly, goal, baseline=table))
        assert words.startswith("abstained from 1 of 3 goals: goal 0: no designs for s 5.8: s lies")
        assert "of 60 designs" in words
        assert len(top_frame(wholly, table, 3)) == 0
        one = Goal(wholly.goal, X, Y)
        words = verdict(wholly, one, candidate_scores(wholly, one))
        assert words.startswith("no designs for s 5.8: s lies outside the data (score ")
        assert words.count(";") == 0

    def test_figures_show_what_there_is(self, partly, wholly, table, tmp_path):
        for candidates, drawn in ((partly, True), (wholly, False)):
            goal = Goal(candidates.goal, X, Y)
            files = draw_figures(tmp_path, "name", goal, table, candidates)
            assert ("designs.png" in [path.name for path in files]) == drawn
