"""The figures of stationary points and of a region with its designs."""

from __future__ import annotations

import numpy as np
import torch

from genopt import Candidates, Goal, Space
from genopt.analysis.plots import plot_study_space_map, plot_study_stationary
from genopt.data.table import Table

X, Y = Space.of(a=(0.0, 1.0), b=(0.0, 1.0)), Space.of(f=(0.0, 2.0), g=(0.0, 2.0))
GRID = torch.cartesian_prod(*[torch.linspace(0.0, 1.0, 6, dtype=torch.float64)] * 2)
TABLE = Table(GRID, torch.stack([GRID.sum(1), GRID[:, 0]], 1), X, Y)


def candidates(header: dict[str, object], goal: Goal) -> Candidates:
    x = torch.tensor([[[0.2, 0.3], [0.6, 0.7], [0.8, 0.1]]], dtype=torch.float64)
    y = torch.stack([x.sum(2), x[..., 0]], 2)
    return Candidates.from_claims(goal, x, y, y_verified=y, header=header)


def test_each_kind_has_its_mark_at_its_points():
    goal = Goal({"f": "min"}, X, Y)
    kinds = ["minimum", "saddle", "minimum"]
    figure = plot_study_stationary(candidates({"kinds": kinds}, goal), goal, TABLE)
    axes = figure.axes[0]
    drawn = {c.get_label(): np.asarray(c.get_offsets()) for c in axes.collections}
    np.testing.assert_allclose(drawn["minima (2)"], [[0.2, 0.3], [0.8, 0.1]])
    np.testing.assert_allclose(drawn["saddles (1)"], [[0.6, 0.7]])
    assert plot_study_stationary(candidates({}, goal), goal, TABLE) is None


def test_a_region_and_its_designs_stand_side_by_side():
    goal = Goal({"f": {"between": [0.2, 1.6]}}, X, Y)
    targets = [[0.5, 0.2], [1.3, 0.6], [0.9, 0.8]]
    header = {"routine": "space_map", "targets": targets, "columns": [0, 1]}
    found = candidates(header, goal)
    left, right = plot_study_space_map(found, TABLE).axes
    outputs = {c.get_label(): np.asarray(c.get_offsets()) for c in left.collections}
    np.testing.assert_allclose(outputs["targets"], targets)
    np.testing.assert_allclose(outputs["designs"], found.y_verified[0])
    np.testing.assert_allclose(np.asarray(right.collections[1].get_offsets()), found.x[0])
    assert plot_study_space_map(candidates({"targets": targets}, goal), TABLE) is None
