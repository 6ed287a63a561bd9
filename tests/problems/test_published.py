"""The published digits of each problem, and its equations against a second derivation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from genopt.errors import UnknownNameError
from genopt.problems import (
    AbsoluteValue,
    ArmKinematics,
    InactiveConstraint,
    PengRobinson,
    PlaneProjection,
    PlugFlow,
)


class TestPengRobinson:
    def test_constants(self) -> None:
        problem = PengRobinson()
        assert problem.kappa == pytest.approx(0.60326533, abs=5e-9)
        assert pytest.approx(0.1837705279, abs=5e-11) == problem.A
        assert pytest.approx(0.0225775063, abs=5e-11) == problem.B

    def test_published_roots_and_weights(self) -> None:
        answers = PengRobinson().answers
        roots = [a.x.item() for a in answers]
        assert roots == pytest.approx([0.0347832004, 0.1280355998, 0.8146036935], abs=5e-11)
        assert [a.weight for a in answers] == pytest.approx([0.4402, 0.5, 0.0598], abs=5e-5)

    def test_roots_solve_the_equation_of_state(self) -> None:
        """P = R T / (V - b) - a alpha / (V^2 + 2 b V - b^2) with V = Z R T / P, by brentq in V."""
        gas, t, p, tc, pc, w = 8.314, 300.0, 10e5, 369.83, 42.48e5, 0.1523
        kappa = 0.37464 + 1.54226 * w - 0.26992 * w * w
        a = 0.45724 * gas**2 * tc**2 / pc * (1 + kappa * (1 - (t / tc) ** 0.5)) ** 2
        b = 0.0778 * gas * tc / pc

        def excess(volume: float) -> float:
            return gas * t / (volume - b) - a / (volume**2 + 2 * b * volume - b**2) - p

        grid = np.linspace(1.05 * b, 0.99 * gas * t / p, 20_001)
        values = np.array([excess(v) for v in grid])
        crossings = np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:]))
        roots = [
            optimize.brentq(excess, grid[i], grid[i + 1], xtol=1e-18) * p / (gas * t)
            for i in crossings
        ]
        stated = [answer.x.item() for answer in PengRobinson().answers]
        assert stated == pytest.approx(roots, abs=1e-11)

    def test_a_hot_gas_has_one_root(self) -> None:
        (answer,) = PengRobinson(temperature=400.0).answers
        assert answer.weight == pytest.approx(1.0)
        assert 0.8 < answer.x.item() < 0.99


class TestPlugFlow:
    def test_published_digits(self) -> None:
        (first,), (second,) = PlugFlow("S1").answers, PlugFlow("S2").answers
        assert first.x.tolist() == pytest.approx([1.9560115027, 2.4429926925], abs=5e-11)
        assert second.x[1].item() == pytest.approx(0.2729788884, abs=5e-11)
        assert first.y.tolist() == [0.02, 0.05]
        assert second.y.tolist() == [0.02, 0.65]

    @settings(max_examples=15, deadline=None)
    @given(k1=st.floats(0.1, 3.0), gap=st.sampled_from([0.0, 1e-9, 1e-3, 0.029, 0.031, 0.4, -0.05]))
    def test_the_flows_solve_the_balances(self, k1: float, gap: float) -> None:
        k2 = min(max(k1 + gap, 0.1), 3.0)
        path = integrate.solve_ivp(
            lambda _, f: [-k1 * f[0], k1 * f[0] - k2 * f[1]],
            (0.0, 2.0),
            [1.0, 0.0],
            rtol=1e-11,
            atol=1e-13,
        )
        flows = PlugFlow().simulate(torch.tensor([k1, k2], dtype=torch.float64))
        np.testing.assert_allclose(flows.numpy(), path.y[:, -1], rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("gap", [0.0, 1e-8, 0.01, 0.03, 0.0301])
    def test_gradient_has_no_trouble_at_equal_constants(self, gap: float) -> None:
        k = torch.tensor([[1.0, 1.0 + gap]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(PlugFlow().simulate, (k,), atol=1e-7)
        assert torch.autograd.gradgradcheck(PlugFlow().simulate, (k,), atol=1e-5)

    def test_unknown_case_offers_the_nearest(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'S1'"):
            PlugFlow("S11")


class TestAbsoluteValue:
    def test_table_has_two_halves_a_gap_and_noise(self) -> None:
        table = AbsoluteValue().table()
        x, y = table.x.squeeze(-1), table.y.squeeze(-1)
        assert int((x < 0).sum()) == int((x > 0).sum()) == 150
        assert float(x.abs().min()) >= 0.5
        assert float(x.abs().max()) <= 1.0
        noise = y - x.abs()
        # five standard errors of 300 draws of N(0, .05)
        assert abs(float(noise.mean())) < 5 * 0.05 / 300**0.5
        assert float(noise.std()) == pytest.approx(0.05, rel=0.2)
        assert abs(float(torch.corrcoef(torch.stack([noise, x]))[0, 1])) < 0.3

    def test_answers(self) -> None:
        assert [(a.x.item(), a.weight) for a in AbsoluteValue().answers] == [
            (-0.75, 0.5),
            (0.75, 0.5),
        ]


def test_plane_projection_is_the_least_norm_solution() -> None:
    nearest, *_ = np.linalg.lstsq(np.array([[2.0, -1.0, 1.0]]), np.array([3.0]), rcond=None)
    (answer,) = PlaneProjection().answers
    np.testing.assert_allclose(answer.x.numpy(), nearest, atol=1e-14)
    assert answer.y.tolist() == pytest.approx([1.5, 0.0])


def test_inactive_constraint_warns_of_the_wrong_answer() -> None:
    problem = InactiveConstraint()
    (answer,) = problem.answers
    assert answer.x.tolist() == [2.0, 1.0]
    assert answer.y.tolist() == [0.0, 2.0]
    trap = problem.simulate(torch.tensor([1.0, 0.0]))
    assert trap.tolist() == [2.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(x=st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4))
def test_arm_is_a_chain_of_rotations(x: list[float]) -> None:
    hand = np.array([0.0, x[0]])
    frame = np.eye(2)
    for angle, length in zip(x[1:], (0.5, 0.5, 1.0), strict=True):
        c, s = np.cos(angle), np.sin(angle)
        frame = frame @ np.array([[c, -s], [s, c]])
        hand = hand + frame @ np.array([length, 0.0])
    y = ArmKinematics().simulate(torch.tensor(x, dtype=torch.float64))
    np.testing.assert_allclose(y.numpy(), hand, atol=1e-12)
