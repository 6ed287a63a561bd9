"""Couplings against brute force, and what plain optimal transport does to a conditional."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.errors import GenoptError
from genopt.models.flow import ConditionalFlow
from genopt.models.flow.couplings import (
    ConditionalOTCoupling,
    IndependentCoupling,
    OTCoupling,
    check_coupling,
)
from genopt.space import Space

torch.set_num_threads(1)
F64 = torch.float64


def drawn(rule, x_1, condition, seed=0):
    """The coupling's noise and the noise that it was dealt out from."""
    plain, coupled = (
        each.noise(x_1, condition, torch.Generator().manual_seed(seed))
        for each in (IndependentCoupling(), rule)
    )
    return coupled, plain


@pytest.mark.parametrize(
    ("rule", "weight"), [(ConditionalOTCoupling(3.0, 6), 3.0), (OTCoupling(6), 0.0)]
)
def test_least_cost_of_all_permutations(rule, weight):
    generator = torch.Generator().manual_seed(3)
    x_1 = torch.randn(6, 2, generator=generator, dtype=F64)
    condition = torch.randn(6, 1, generator=generator, dtype=F64)
    x_0, plain = drawn(rule, x_1, condition)

    def cost(order):
        points = ((x_1 - plain[order]) ** 2).sum()
        return float(points + weight * ((condition - condition[order]) ** 2).sum())

    best = min(permutations(range(6)), key=lambda order: cost(list(order)))
    torch.testing.assert_close(x_0, plain[list(best)])
    assert cost(list(best)) < cost(list(range(6)))


@pytest.mark.parametrize("rows", [5, 64, 150])
def test_noise_is_only_permuted_within_groups(rows):
    generator = torch.Generator().manual_seed(4)
    x_1, condition = torch.randn(2, rows, 3, generator=generator)
    kept = x_1.clone(), condition.clone()
    x_0, plain = drawn(ConditionalOTCoupling(0.1, 64), x_1, condition)
    for part, before in zip(x_0.split(64), plain.split(64), strict=True):
        np.testing.assert_array_equal(
            np.sort(part.numpy(), axis=0), np.sort(before.numpy(), axis=0)
        )
    assert torch.equal(x_1, kept[0])
    assert torch.equal(condition, kept[1])
    assert not torch.equal(x_0, plain)


def test_noise_stays_with_its_class():
    generator = torch.Generator().manual_seed(5)
    condition = torch.randint(0, 2, (256, 1), generator=generator).to(F64)
    x_1 = torch.randn(256, 1, generator=generator, dtype=F64) + 3 * condition
    x_0, plain = drawn(ConditionalOTCoupling(), x_1, condition)
    for label in (0.0, 1.0):
        own = condition[:, 0] == label
        np.testing.assert_array_equal(x_0[own, 0].sort().values, plain[own, 0].sort().values)
        # and is in order within it, which is what transport is on a line
        mine = x_0[:64][own[:64], 0][x_1[:64][own[:64], 0].argsort()]
        assert bool((mine.diff() >= 0).all())


def test_plain_transport_ties_noise_to_the_condition_and_the_conditional_one_does_not():
    """Where x is about the condition, sorted noise is, too, and p(x | y) would be lost."""
    generator = torch.Generator().manual_seed(6)
    condition = torch.randn(6400, 1, generator=generator, dtype=F64)
    x_1 = condition + 0.3 * torch.randn(6400, 1, generator=generator, dtype=F64)

    def tie(weight):
        x_0, _ = drawn(ConditionalOTCoupling(weight), x_1, condition)
        return stats.pearsonr(x_0[:, 0].numpy(), condition[:, 0].numpy()).statistic

    assert tie(0.0) > 0.85
    assert abs(tie(100.0)) < 0.1
    # the noise of rows with equal conditions still follows their data
    x_0, _ = drawn(ConditionalOTCoupling(), x_1, torch.zeros_like(condition))
    assert stats.pearsonr(x_0[:, 0].numpy(), x_1[:, 0].numpy()).statistic > 0.95


def test_plain_transport_is_refused_where_there_is_a_condition():
    with pytest.raises(GenoptError, match="use coupling=conditional_ot"):
        ConditionalFlow(Space.of(x=(0, 1)), Space.of(y=(0, 1)), coupling="ot")
    check_coupling(OTCoupling(), 0)
    check_coupling(ConditionalOTCoupling(), 3)
    for options in ({"weight": -1.0}, {"group": 1}):
        with pytest.raises(GenoptError, match="group"):
            ConditionalOTCoupling(**options)
    with pytest.raises(GenoptError, match="group=1"):
        OTCoupling(group=1)
