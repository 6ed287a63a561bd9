"""The random pair: its exact moments and its formula against numbers worked out otherwise."""

import math

import pytest
import torch
from scipy.integrate import quad

from genopt.errors import GenoptError
from genopt.problems.synthetic_pair import SyntheticPair


@pytest.mark.parametrize("variant", [0, 3])
def test_moments_against_quadrature(variant):
    pair = SyntheticPair(4, variant)
    for k in range(2):
        mean = variance = 0.0
        for a, w, p in zip(pair.sines[k], pair.waves[k], pair.phases[k], strict=True):
            a, w, p = float(a), float(w), float(p)

            def wave(x, a=a, w=w, p=p):
                return a * math.sin(w * x + p)

            first = quad(wave, -1, 1)[0] / 2
            mean += first
            variance += quad(lambda x, wave=wave: wave(x) ** 2, -1, 1)[0] / 2 - first**2
        variance += sum(float(b) ** 2 * (2 / 3 / 2) ** 2 for b in pair.products[k])
        assert float(pair.mean[k]) == pytest.approx(mean, abs=1e-9)
        assert float(pair.spread[k]) == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_table_has_mean_zero_and_variance_one():
    y = SyntheticPair().table(8192).y
    assert float(y.mean(0).abs().max()) < 0.02
    assert float((y.std(0) - 1.0).abs().max()) < 0.02


def test_formula_by_plain_arithmetic():
    pair = SyntheticPair(5, 1)
    x = [0.3, -0.9, 0.1, 1.0, -1.7]
    got = pair.simulate(torch.tensor(x))
    for k in range(2):
        total = sum(
            float(pair.sines[k, i]) * math.sin(float(pair.waves[k, i]) * x[i] + float(p))
            for i, p in enumerate(pair.phases[k])
        )
        for b, (i, j) in zip(pair.products[k], pair.pairs[k].tolist(), strict=True):
            assert i < j
            total += float(b) * x[i] * x[j]
        assert float(got[k]) == pytest.approx(
            (total - float(pair.mean[k])) / float(pair.spread[k]), abs=1e-6
        )


def test_the_goal_is_reachable_and_variants_differ():
    pair = SyntheticPair(variant=2)
    assert not torch.equal(pair.sines, SyntheticPair(variant=1).sines)
    assert torch.equal(pair.pairs, SyntheticPair(variant=2).pairs)
    x = pair.design(512).requires_grad_(True)
    for _ in range(50):
        loss = (pair.simulate(x) - torch.tensor([2.0, -2.0])).square().sum()
        (slope,) = torch.autograd.grad(loss, x)
        x = (x - 0.02 * slope).clamp(-1.0, 1.0).detach().requires_grad_(True)
    miss = (pair.simulate(x) - torch.tensor([2.0, -2.0])).abs().amax(-1)
    assert float(miss.detach().min()) < 1e-4


@pytest.mark.parametrize("wrong", [{"dimension": 2}, {"variant": -1}])
def test_wrong_arguments(wrong):
    with pytest.raises(GenoptError, match="dimension must be at least 3 and variant not negative"):
        SyntheticPair(**wrong)
