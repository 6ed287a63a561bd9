"""Test problems of pymoo and botorch: the same numbers as theirs, and no answer that is wrong."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems.documented import DocumentedWarning, Referee, checked_answers, checked_front
from genopt.problems.fronts import best_of_two, front_designs, front_of
from genopt.problems.zdt1 import Zdt1

pytest.importorskip("pymoo")
from genopt.problems.pymoo_problem import PymooProblem


def bnh(x: np.ndarray) -> np.ndarray:
    """The equations of Binh and Korn 1997."""
    a, b = x
    return np.array(
        [
            4 * a**2 + 4 * b**2,
            (a - 5) ** 2 + (b - 5) ** 2,
            ((a - 5) ** 2 + b**2) / 25 - 1,
            1 - ((a - 8) ** 2 + (b + 3) ** 2) / 7.7,
        ]
    )


def test_columns_goal_and_values_are_those_of_pymoo():
    problem = PymooProblem("bnh")
    assert problem.y_space.names == ("f1", "f2", "g1", "g2")
    assert problem.default_goal == {
        "f1": "min", "f2": "min", "g1": {"at_most": 0.0}, "g2": {"at_most": 0.0},
    }  # fmt: skip
    x = problem.design(20, seed=1)
    y = problem.simulate(x.reshape(4, 5, 2))
    assert y.shape == (4, 5, 4)
    assert y.dtype == torch.float64
    expected = np.stack([bnh(row) for row in x.numpy()])
    assert np.allclose(y.reshape(20, 4), expected)


def test_equalities_have_the_tolerance_of_the_library():
    problem = PymooProblem("g5")
    assert problem.default_goal["h1"] == {"equals": 0.0, "tolerance": 1e-4}
    (answer,) = problem.answers
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    assert bool(goal.satisfied(answer.y))
    assert float(answer.y[0]) == pytest.approx(5126.498, abs=0.01)


def test_bounds_can_be_given_and_unknown_ones_are_named():
    problem = PymooProblem("bnh", bounds={"f1": [0, 200]})
    assert (problem.y_space["f1"].lower, problem.y_space["f1"].upper) == (0.0, 200.0)
    with pytest.raises(UnknownNameError, match="g2"):
        PymooProblem("bnh", bounds={"g3": [0, 1]})


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("bhn", {}, "did you mean 'bnh'"),
        ("knp", {"n_items": 3, "W": [1, 1, 1], "P": [1, 1, 1], "C": 2}, "not real numbers"),
        ("zdt5", {}, "not real numbers"),
        ("zdt1", {"nvar": 3}, "options"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(function, options, words):
    with pytest.raises(GenoptError, match=words):
        PymooProblem(function, options)


def test_a_wrong_documented_optimum_is_dropped_with_a_reason():
    with pytest.warns(DocumentedWarning, match=r"value is 5885.3, evaluated it is 6059"):
        problem = PymooProblem("pressure_vessel")
    assert problem.answers == ()


def test_a_documented_optimum_that_is_infeasible_or_beaten_is_dropped():
    problem = PymooProblem("bnh")
    problem.default_goal = {"f1": "min", "g1": {"at_most": 0.0}}
    # f1 is 36 at (3, 0), but 0 at (0, 0), which keeps g1
    with pytest.warns(DocumentedWarning, match="a local search finds"):
        assert (
            checked_answers(problem, torch.tensor([[3.0, 0.0]]).double(), torch.tensor([36.0]))
            == ()
        )
    with pytest.warns(DocumentedWarning, match="violate g1"):
        assert (
            checked_answers(problem, torch.tensor([[0.0, 3.0]]).double(), torch.tensor([36.0]))
            == ()
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(checked_answers(problem, torch.zeros(1, 2).double(), torch.zeros(1))) == 1


FRONTS = {
    "bnh": PymooProblem("bnh"),
    "osy": PymooProblem("osy"),
    "srn": PymooProblem("srn"),
    "zdt1": PymooProblem("zdt1", {"n_var": 4}),
    "zdt2": PymooProblem("zdt2", {"n_var": 4}),
    "zdt3": PymooProblem("zdt3", {"n_var": 4}),
    "zdt6": PymooProblem("zdt6", {"n_var": 4}),
}


@pytest.mark.parametrize("name", FRONTS)
def test_no_other_solver_beats_a_front_in_closed_form(name):
    """Epsilon-constraints by SLSQP from random starts, without gradients of ours."""
    problem = FRONTS[name]
    x = problem.front_designs(300)
    y = problem.simulate(x)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    assert bool(goal.satisfied(y).all())
    assert bool((y[:, 0].diff() > 0).all())
    assert bool((y[:, 1].diff() < 0).all())
    lower, upper = problem.x_space.lower.numpy(), problem.x_space.upper.numpy()
    width = (y.amax(0) - y.amin(0)).numpy()
    rng = np.random.default_rng(0)

    def ask(z: np.ndarray) -> np.ndarray:
        return problem.simulate(torch.from_numpy(np.clip(z, lower, upper))).numpy()

    for row in y[torch.linspace(5, len(y) - 6, 3).long()].numpy():
        limits = {
            "type": "ineq",
            "fun": lambda z, row=row: np.append(-ask(z)[2:], (row[0] - ask(z)[0]) / width[0]),
        }
        for _ in range(3):
            found = optimize.minimize(
                lambda z: ask(z)[1] / width[1],
                rng.uniform(lower, upper),
                bounds=list(zip(lower, upper, strict=True)),
                constraints=limits,
                method="SLSQP",
            )
            reached = ask(found.x)
            kept = reached[2:].max(initial=-1.0) <= 1e-7 and reached[0] <= row[0] + 1e-7 * width[0]
            assert not kept or reached[1] >= row[1] - 2e-2 * width[1]


@pytest.mark.parametrize("name", ["zdt1", "zdt2"])
def test_fronts_have_their_published_shape(name):
    y = FRONTS[name].simulate(FRONTS[name].front_designs(50))
    power = 0.5 if name == "zdt1" else 2.0
    assert torch.allclose(y[:, 1], 1.0 - y[:, 0] ** power)


def test_dtlz_fronts_lie_on_their_plane_and_sphere():
    plane = PymooProblem("dtlz1", {"n_var": 4, "n_obj": 3})
    assert torch.allclose(
        plane.simulate(plane.front_designs(30)).sum(-1), torch.tensor(0.5).double()
    )
    sphere = PymooProblem("dtlz2", {"n_var": 4, "n_obj": 3})
    radius = sphere.simulate(sphere.front_designs(30)).square().sum(-1)
    assert torch.allclose(radius, torch.ones_like(radius))


def test_a_wrong_front_is_dropped():
    class Wrong(Zdt1):
        _trusted: bool | None = None

        def simulate(self, x: Tensor) -> Tensor:
            # the front of this one lies at x2 = .5, not at 0
            return super().simulate(torch.cat([x[..., :1], (x[..., 1:] - 0.5).abs()], -1))

    problem = Wrong()
    with pytest.warns(DocumentedWarning, match="front is dropped: a local search finds"):
        assert len(checked_front(problem, "zdt1", 2, 50)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(checked_front(problem, "zdt1", 2, 50)) == 0


def test_unknown_fronts_are_none_and_known_ones_are_asked_by_method():
    assert len(front_designs("tnk", 2, 2, 10)) == 0
    assert front_of(PymooProblem("tnk")) is None
    own = front_of(Zdt1(), 11)
    assert own is not None
    assert torch.allclose(own[:, 1], 1.0 - own[:, 0].sqrt())


def test_the_referee_accepts_a_front_in_another_order():
    assert Referee(Zdt1()).objection(Zdt1().front_designs(4).flip(0)) == ""


def test_best_of_two_agrees_with_comparing_all_pairs():
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).mul(8).round()
    beaten = [any(bool((q <= p).all() and (q < p).any()) for q in points) for p in points]
    kept = {tuple(p.tolist()) for p, b in zip(points, beaten, strict=True) if not b}
    assert {tuple(p.tolist()) for p in points[best_of_two(points)]} == kept


class TestBotorch:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("botorch")

    def problem(self, name: str, **options: Any) -> Any:
        from genopt.problems.botorch_problem import BotorchProblem

        return BotorchProblem(name, options)

    def test_both_libraries_pose_the_same_osy(self):
        theirs, other = self.problem("OSY"), FRONTS["osy"]
        x = other.design(64)
        a, b = theirs.simulate(x), other.simulate(x)
        assert torch.allclose(a[:, :2], b[:, :2])
        # slacks here, scaled violations there
        assert torch.equal(a[:, 2:] >= 0, b[:, 2:] <= 0)
        assert theirs.default_goal["c1"] == {"at_least": 0.0}
        assert torch.allclose(theirs.front_designs(50), other.front_designs(50))

    def test_gradients_are_finite_differences(self):
        problem = self.problem("BraninCurrin")
        x = problem.design(3, seed=2)[1:]
        assert torch.autograd.gradcheck(problem.simulate, (x.requires_grad_(),))

    def test_a_maximisation_problem_is_maximised(self):
        problem = self.problem("Cosine8")
        assert problem.default_goal == {"f": "max"}
        assert float(problem.answers[0].y) == pytest.approx(0.8)

    def test_answers_are_optima_by_another_solver(self):
        problem = self.problem("Branin")
        assert len(problem.answers) == 3
        bounds = list(
            zip(problem.x_space.lower.tolist(), problem.x_space.upper.tolist(), strict=True)
        )
        best = optimize.differential_evolution(
            lambda z: problem.simulate(torch.from_numpy(z.T.copy()))[:, 0].numpy(), bounds, seed=0,
            tol=1e-6, vectorized=True, updating="deferred",
        ).fun  # fmt: skip
        for answer in problem.answers:
            assert float(answer.y) == pytest.approx(best, abs=1e-5)

    @pytest.mark.parametrize("name", ["WeldedBeam", "SRN"])
    def test_wrong_equations_are_refused(self, name):
        with pytest.raises(GenoptError, match="problem=pymoo"):
            self.problem(name)

    def test_why_welded_beam_is_refused(self):
        """A design that pymoo's equations allow has negative slacks in botorch."""
        from botorch.test_functions.multi_objective import WeldedBeam

        beam = PymooProblem("welded_beam")
        x = beam.design(4096)
        allowed = (beam.simulate(x)[:, 2:] < 0).all(1)
        slack = WeldedBeam().evaluate_slack_true(x[allowed])
        assert bool(allowed.any())
        assert bool((slack < 0).all())

    @pytest.mark.parametrize("name", ["CONSTR", "PressureVessel", "WeldedBeamSO"])
    def test_unsafe_references_come_without_answers(self, name):
        problem = self.problem(name)
        assert problem.answers == ()
        assert "without answers" in problem.description

    def test_bounds_reached_by_rounding_are_inside(self):
        problem = self.problem("BraninCurrin")
        x = problem.x_space.upper * (1.0 + 1e-12)
        assert torch.allclose(problem.simulate(x), problem.simulate(problem.x_space.upper))

    def test_unknown_names_and_options_are_said(self):
        with pytest.raises(UnknownNameError, match="did you mean 'Branin'"):
            self.problem("Brannin")
        with pytest.raises(GenoptError, match="options"):
            self.problem("ZDT1")
