"""`active`: a budget that is kept, a run that goes on, failures lost alone, better designs."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch

from genopt import GenoptError, Goal, Mixture, Space, Table, compose, run_study
from genopt.models.nothing import Nothing
from genopt.problems import Problem
from genopt.problems.ackley import Ackley
from genopt.problems.branin import Branin
from genopt.problems.rastrigin_value import RastriginValue
from genopt.routines.active import active
from genopt.routines.active_progress import telling_rows, trust_width

pytestmark = pytest.mark.filterwarnings("ignore::genopt.problems.SimulationWarning")


class Bowl(Problem):
    """A distance to (.3, .7) that counts its calls; raises where u > .9."""

    def __init__(self, brittle: bool = False) -> None:
        space = Space.of(u=(0.0, 1.0), v=(0.0, 1.0))
        super().__init__("bowl", space, Space.of(f=(0.0, 1.0), g=(0.0, 1.0)), {"f": "min"})
        self.brittle, self.asked = brittle, []

    def simulate(self, x):
        if self.brittle and bool((x[:, 0] > 0.9).any()):
            raise ArithmeticError("no steady state")
        self.asked.extend(x.tolist())
        away = x - torch.tensor([0.3, 0.7], dtype=x.dtype)
        return torch.stack([away.square().sum(-1), x[:, 0]], -1)


def goal_of(problem, wish=None):
    return Goal(wish or problem.default_goal, problem.x_space, problem.y_space)


def run(problem, n=12, wish=None, **options):
    options = {"batch": 4, "budget": 16, "proposals": "none", "surrogate": "gp", **options}
    table = options.pop("table", None) or problem.table(n)
    if isinstance(problem, Bowl):
        problem.asked.clear()
    return active(None, goal_of(problem, wish), problem=problem, table=table, **options)


def test_a_parabola_is_found_exactly_within_the_budget():
    problem = Bowl()
    found = run(problem)
    assert len(problem.asked) == 16
    assert found.header["numbers"]["calls"] == 16
    torch.testing.assert_close(
        found.x[0, 0], torch.tensor([0.3, 0.7], dtype=torch.float64), atol=0.02, rtol=0
    )
    # what is returned is measured, best first, and nothing was asked twice
    torch.testing.assert_close(found.y_verified, problem.simulate(found.x[0])[None])
    assert bool((found.loss[0].diff() >= 0).all())
    assert len({tuple(row) for row in problem.asked[:16]}) == 16


def test_it_beats_the_same_number_of_random_designs_in_many_columns():
    problem = RastriginValue(8, shift_seed=1)
    found = run(problem, n=40, budget=60, batch=20)
    even = problem.table(100, seed=0).y.min()
    assert float(found.y_verified[0, 0, 0]) < 0.75 * float(even)
    best = found.header["history"]["best"][0]
    assert all(later <= earlier for earlier, later in pairwise(best))
    assert best[-1] == float(found.y_verified[0, 0, 0])
    assert found.header["history"]["calls"] == [0, 20, 40, 60]


def test_a_run_that_was_killed_goes_on_without_repeating_a_simulation(tmp_path):
    problem = Bowl()
    table = problem.table(12)
    whole = run(problem, table=table, folder=tmp_path / "whole")
    everything = list(problem.asked)

    class Killed(Exception):
        pass

    class Mortal(Bowl):
        def simulate(self, x):
            if len(self.asked) >= 8:
                raise KeyboardInterrupt
            return super().simulate(x)

    mortal = Mortal()
    with pytest.raises(KeyboardInterrupt):
        run(mortal, table=table, folder=tmp_path / "cut")
    assert mortal.asked == everything[:8]
    state = json.loads((tmp_path / "cut" / "state.json").read_text())
    assert state["calls"] == 8
    again = run(problem, table=table, folder=tmp_path / "cut")
    assert len(problem.asked) == 8
    assert not {tuple(row) for row in problem.asked} & {tuple(row) for row in everything[:8]}
    assert again.header["numbers"]["calls"] == 16
    assert again.header["history"]["best"][0][:3] == whole.header["history"]["best"][0][:3]
    # a finished run asks nothing, a larger budget goes on
    assert torch.equal(run(problem, table=table, folder=tmp_path / "cut").x, again.x)
    assert problem.asked == []
    run(problem, table=table, folder=tmp_path / "cut", budget=20)
    assert len(problem.asked) == 4


def test_another_runs_folder_is_refused(tmp_path):
    problem = Bowl()
    run(problem, folder=tmp_path, budget=4)
    with pytest.raises(GenoptError, match="holds another active run"):
        run(problem, folder=tmp_path, wish={"f": "max"}, budget=4)


def test_designs_that_cannot_be_simulated_are_lost_alone_and_paid_for():
    problem = Bowl(brittle=True)
    table = Bowl().table(12)
    # the wish pulls to the side where the simulator fails
    found = run(problem, table=table, wish={"g": "max"}, budget=24)
    numbers = found.header["numbers"]
    assert numbers["failed"] > 0
    assert len(problem.asked) + numbers["failed"] == numbers["calls"] == 24
    assert 0.8 < float(found.y_verified[0, 0, 1]) <= max(0.9, float(table.y[:, 1].max()))
    assert any("could not be simulated" in part for part in found.header["says"])


def test_a_simulator_that_always_fails_is_given_up():
    class Dead(Bowl):
        def simulate(self, x):
            raise ArithmeticError("no steady state")

    with pytest.raises(GenoptError, match="failed for all designs of 3 rounds: ArithmeticError"):
        run(Dead(), table=Bowl().table(12), budget=100)


def test_inequalities_are_kept_while_a_wish_is_followed():
    # the least distance to (.3, .7) on the line u = .5 is .04
    found = run(Bowl(), wish={"f": "min", "g": {"at_least": 0.5}}, budget=24)
    assert float(found.y_verified[0, 0, 1]) >= 0.5
    assert float(found.y_verified[0, 0, 0]) == pytest.approx(0.04, abs=0.005)


def test_two_goals_share_the_batch_and_columns_are_held():
    found = run(Bowl(), wish={"g": [0.2, 0.8], "v": [0.1, 0.9]}, budget=12)
    assert found.shape[0] == 2
    best = found.y_verified[:, 0, 1]
    torch.testing.assert_close(
        best, torch.tensor([0.2, 0.8], dtype=torch.float64), atol=0.02, rtol=0
    )


def test_several_wishes_give_the_trade_offs():
    # f grows with the distance from u = .3, g falls with u: the front is u in [0, .3], v = .7
    found = run(Bowl(), wish={"f": "min", "g": "min"}, n=10, budget=24, batch=6, keep=5)
    y = found.y_verified[0]
    beaten = ((y[None] <= y[:, None]).all(-1) & (y[None] < y[:, None]).any(-1)).any(1)
    front = y[~beaten]
    assert len(front) >= 8
    exact = (0.3 - front[:, 1]).clamp_min(0.0).square()
    assert float((front[:, 0] - exact).median()) < 0.01


def test_classes_and_simplexes_are_searched_too():
    class Blend(Problem):
        def __init__(self) -> None:
            from genopt import Variable

            kinds = [Variable("a", 0, 1), Variable("b", 0, 1), Variable("c", 0, 1)]
            kind = Variable("kind", kind="categorical", labels=("red", "green", "blue"))
            count = Variable("count", 1, 5, kind="integer")
            space = Space((*kinds, kind, count), simplexes=(("a", "b", "c"),))
            super().__init__("blend", space, Space.of(f=(0.0, 4.0)), {"f": "min"})

        def simulate(self, x):
            target = torch.tensor([0.5, 0.3, 0.2], dtype=x.dtype)
            off = (x[..., :3] - target).square().sum(-1)
            return (off + (x[..., 3] != 1) + 0.1 * (x[..., 4] - 4).abs())[..., None]

    problem = Blend()
    found = run(problem, n=30, budget=40, batch=10)
    assert bool(problem.x_space.contains(found.x).all())
    assert found.x[0, 0, 3:].tolist() == [1.0, 4.0]
    assert float(found.y_verified[0, 0, 0]) < 0.01


def test_the_engine_proposes_and_is_trained_again():
    problem = Ackley(2, bound=5.0)
    trained = []

    def train(table: Table) -> Mixture:
        trained.append(len(table))
        model = Mixture(problem.x_space, problem.y_space, max_components=2)
        return model.fit(table.x, table.y)

    table = problem.table(40)
    found = active(
        train(table), goal_of(problem), problem=problem, table=table, train=train,
        batch=10, budget=30, retrain=1,
    )  # fmt: skip
    assert trained == [40, 50, 60]
    assert float(found.y_verified[0, 0, 0]) < 0.8 * float(table.y.min())


def test_a_model_that_knows_the_truth_needs_one_round():
    class Knows:
        def __init__(self, problem):
            self.x_space, self.y_space = problem.x_space, problem.y_space

        def predict_y(self, x):
            return RastriginValue(2, shift_seed=0).simulate(x)

    problem = RastriginValue(2, shift_seed=0)
    found = active(
        Knows(problem), goal_of(problem), problem=problem, table=problem.table(10),
        batch=4, budget=4, surrogate="model", proposals="none",
    )  # fmt: skip
    assert float(found.y_verified[0, 0, 0]) < 0.1


@pytest.mark.parametrize("acquisition", ["improvement", "confidence", "thompson", "greedy"])
def test_every_acquisition_improves(acquisition):
    problem = Bowl()
    found = run(problem, acquisition=acquisition, trust_region=True, budget=8)
    assert float(found.y_verified[0, 0, 0]) < 0.2 * float(problem.table(12).y[:, 0].min())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "routine.batch must be at least 1, got 0"),
        ({"acquisition": "ei"}, "routine.acquisition 'ei'"),
        ({"surrogate": "gpp"}, "routine.surrogate 'gpp'"),
        ({"surrogate": "model"}, "needs a model that predicts y, not NoneType"),
        ({"proposals": "pareto"}, "proposals must be auto, none, the import path"),
        ({"proposals": "genopt.routines.nowhere.f"}, "proposals: cannot import"),
        ({"trust_region": "yes"}, "routine.trust_region must be true, false or auto"),
        ({"wish": {"f": "min", "g": "min"}, "trust_region": True}, "one wish at most"),
        ({"wish": {"g": [0.1, 0.2, 0.3, 0.4, 0.5]}}, "routine.batch=4 is shared among 5 goals"),
    ],
)
def test_bad_options_are_said_before_any_simulation(options, message):
    problem = Bowl()
    table = problem.table(4)
    with pytest.raises(GenoptError, match=message):
        run(problem, table=table, **options)
    assert problem.asked == []


def test_values_that_are_missing_do_not_count():
    table = Bowl().table(12)
    y = table.y.clone()
    y[:6, 0] = math.nan
    found = run(Bowl(), table=Table(table.x, y, table.x_space, table.y_space), budget=8)
    assert bool(torch.isfinite(found.y_verified[0, 0]).all())


@pytest.mark.e2e
@pytest.mark.parametrize("model", ["mixture", "none"])
def test_a_study_shows_how_it_went(model, tmp_path):
    options = ["problem=ackley", "problem.bound=5", f"model={model}", "routine=active"]
    options += ["routine.batch=5", "routine.budget=10", "data.rows=30", "progress=false"]
    if model == "mixture":
        options.append("model.max_components=2")
    result = run_study(compose([*options, "logger=none"]), tmp_path, show=False)
    assert result.metrics["routine/calls"] == 10
    assert (tmp_path / "figures" / "progress.png").exists()
    assert (tmp_path / "routine" / "rows.parquet").exists()
    assert "after 10 simulations" in result.verdict


def test_bad_options_of_a_study_are_said_before_training(tmp_path):
    options = ["problem=ackley", "model=flow", "routine=active", "routine.surrogate=model"]
    with pytest.raises(GenoptError, match="needs a model that predicts y, not ConditionalFlow"):
        run_study(compose([*options, "logger=none", "progress=false"]), tmp_path, show=False)
    assert not (tmp_path / "model.ckpt").exists()


def test_the_trust_region_shrinks_without_success_and_opens_again():
    better = [float(-i) for i in range(1, 20)]
    stuck = [-1.0] * 40
    assert trust_width(better, 20, 20) == 1.6
    widths = [trust_width(stuck[:n], 20, 20) for n in range(1, 25)]
    # every second round without success halves it
    assert widths[:7] == [1.6, 1.6, 0.8, 0.8, 0.4, 0.4, 0.2]
    assert min(widths) >= 2.0**-7
    assert 1.6 in widths[10:]
    # small batches are more patient: one design a round says little in twenty columns
    assert trust_width(stuck[:20], 20, 1) == 1.6


def test_the_rows_that_tell_most_are_the_best_of_every_wish():
    goal = Goal({"f": "min", "g": "max"}, Bowl().x_space, Bowl().y_space)
    y = torch.rand(900, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = telling_rows(goal, y, 60, 20)
    assert len(kept) == len(set(kept.tolist())) == 80
    assert int(y[:, 0].argmin()) in kept.tolist()
    assert int(y[:, 1].argmax()) in kept.tolist()
    score = y[:, 1] - y[:, 0]
    assert float(score[kept].mean()) > float(score.mean()) + 0.3
    assert torch.equal(telling_rows(goal, y[:50], 60, 20), torch.arange(50))


def test_designs_that_do_not_hold_the_goal_are_no_answers():
    problem = Branin()
    goal = Goal({"f": "min", "x1": 3.0}, problem.x_space, problem.y_space)
    found = active(
        Nothing(problem.x_space, problem.y_space), goal, problem=problem, table=problem.table(20),
        budget=10, batch=5, keep=6,
    )  # fmt: skip
    torch.testing.assert_close(found.x[..., 0], torch.full_like(found.x[..., 0], 3.0))
    assert found.shape[1] == 6
    assert float(found.y_verified[0, 0, 0]) == float(found.y_verified.min())
    assert "no row with the held columns before" in found.header["says"][0]
