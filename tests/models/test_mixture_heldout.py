"""Held-out likelihood as the judge of how many components a mixture needs."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.models.mixture import Mixture, best_gmm
from genopt.models.mixture.heldout import fold_rows
from genopt.space import Space, Variable


def clusters(n_clusters, rows=120, seed=0):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(n_clusters) / n_clusters
    centers = 10 * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([center + rng.normal(size=(rows, 2)) for center in centers])


class TestBestGmm:
    def test_every_row_is_held_out_once(self):
        for n, folds in ((17, 5), (4, 10), (60, 3)):
            parts = fold_rows(n, folds, seed=1)
            assert sorted(np.concatenate(parts)) == list(range(n))
            assert min(len(part) for part in parts) >= 2

    @pytest.mark.parametrize(("n_clusters", "scale"), [(1, 1.0), (3, 1.0), (4, 1e-5)])
    def test_finds_well_separated_clusters(self, n_clusters, scale):
        fit = best_gmm(clusters(n_clusters) * scale, 6, criterion="heldout")
        assert fit.n_components == n_clusters

    def test_the_loss_is_the_entropy_in_raw_units(self):
        rng = np.random.default_rng(0)
        a = rng.normal(size=4000)
        data = np.column_stack([1e3 * (a + 0.1 * rng.normal(size=4000)), 1e-3 * a])
        joint = best_gmm(data, 1, criterion="heldout").scores[1]
        given = best_gmm(data, 1, criterion="heldout", given=[1]).scores[1]
        entropy = [stats.norm(scale=s).entropy() for s in (1e-3, 100.0)]
        assert joint == pytest.approx(sum(entropy), abs=0.05)
        assert given == pytest.approx(entropy[1], abs=0.05)

    def test_a_few_noisy_rows_are_not_overfitted(self):
        rng = np.random.default_rng(0)
        data = rng.normal(size=(60, 7))
        data[:, 6] = data[:, 0] - data[:, 1] + 0.2 * rng.normal(size=60)
        assert best_gmm(data, 10, criterion="heldout", given=[6]).n_components == 1

    def test_an_own_density_decides(self):
        data = clusters(3)
        seen = []

        def score(gmm, rows):
            seen.extend(rows)
            return np.full(len(rows), -abs(gmm.n_components - 2.0))

        assert best_gmm(data, 4, criterion="heldout", score=score).n_components == 2
        assert set(seen) == set(range(len(data)))

    def test_one_lost_row_does_not_decide(self):
        data = clusters(3)
        data[0] = [1e4, -1e4]
        assert best_gmm(data, 5, criterion="heldout").n_components >= 3


class TestMixture:
    def test_classes_count_by_their_probability(self):
        rng = np.random.default_rng(0)
        kind = rng.integers(0, 3, 200)
        y = kind[:, None] + 0.4 * rng.normal(size=(200, 1))
        space = Space((Variable("k", kind="categorical", labels=("u", "v", "w")),))
        model = Mixture(space, Space.of(y=(-9.0, 9.0)), max_components=5, criterion="conditional")
        model.fit(torch.from_numpy(kind[:, None].astype(float)), torch.from_numpy(y))
        scores = model.selection.scores
        # between certainty and a guess among three, which no density of one-hot columns is
        # (two components join two of the three kinds, and may be surely wrong)
        assert all(0.0 < score < math.log(3.0) for n, score in scores.items() if n != 2)
        assert model.selection.n_components > 1

    def test_only_the_joint_density_asks_how_the_outputs_lie(self):
        # x is linear in y, whose two clusters say nothing about it
        rng = np.random.default_rng(0)
        y = np.repeat([0.0, 5.0], 100)[:, None] + 0.1 * rng.normal(size=(200, 1))
        x, y = torch.from_numpy(2.0 * y + rng.normal(size=(200, 1))), torch.from_numpy(y)
        spaces = Space.of(x=(-20.0, 20.0)), Space.of(y=(-1.0, 6.0))
        gain = {}
        for criterion in ("heldout", "conditional"):
            model = Mixture(*spaces, max_components=3, criterion=criterion).fit(x, y)
            gain[criterion] = model.selection.scores[1] - model.selection.scores[2]
        # two clusters of deviation .1 instead of one Gaussian of deviation 2.5
        assert gain["heldout"] == pytest.approx(math.log(2.5 / 0.1 / 2.0), abs=0.1)
        assert gain["conditional"] == pytest.approx(0.0, abs=0.05)

    def test_few_rows_with_a_class_are_not_overfitted(self):
        rng = np.random.default_rng(1)
        x = np.column_stack([rng.normal(size=(50, 3)), rng.integers(0, 4, 50)])
        y = torch.from_numpy(x[:, :1] - x[:, 1:2] + 0.3 * rng.normal(size=(50, 1)))
        kinds = Variable("k", kind="categorical", labels=tuple("uvwz"))
        space = Space((*(Variable(name, -9.0, 9.0) for name in "abc"), kinds))
        x = torch.from_numpy(x)
        model = Mixture(space, Space.of(y=(-9.0, 9.0)), max_components=6).fit(x[:40], y[:40])
        bic = Mixture(space, Space.of(y=(-9.0, 9.0)), max_components=6, criterion="bic")
        held_out = [m.log_prob(x[40:], y[40:]).mean() for m in (model, bic.fit(x[:40], y[:40]))]
        assert held_out[0] > held_out[1]
        assert held_out[0] > -8.0
