"""`optimize_latent` refuses bad arguments by name, before any work."""

from __future__ import annotations

import pytest
import torch

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.space import Space

HEADS = {
    "a": "regression",
    "b": "regression",
    "v": {"kind": "regression", "dim": 2},
    "c": {"kind": "classification", "num_classes": 3},
    "back": "autoencoder",
}
X_0 = torch.tensor([[1.0, 1.0], [3.0, 2.5], [0.2, 3.7]], dtype=torch.float64)


@pytest.fixture(scope="module")
def model() -> FlexibleMultiTaskModel:
    space = Space.of(p=(0.0, 4.0), q=(0.0, 4.0))
    return FlexibleMultiTaskModel(heads=HEADS, x_space=space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_input": None}, "initial_input is missing"),
        (
            {"initial_input": torch.ones(3, 5)},
            r"initial_input has shape \(3, 5\); expected \(B, 2\)",
        ),
        ({"initial_input": torch.ones(2, 2, 2)}, r"expected \(B, 2\) or \(2,\)"),
        ({"initial_input": [[torch.nan, 1.0]]}, "initial_input holds NaN"),
        ({"initial_input": [[torch.inf, 1.0]]}, "initial_input holds NaN or infinite"),
        ({"task_name": "A"}, "unknown task_name 'A'"),
        ({"task_name": None}, "task_name is missing"),
        ({"task_name": "c"}, "target_value=class"),
        ({"task_name": "c", "target_value": 3}, "code from 0 to 2"),
        ({"task_name": "back"}, "no regression head"),
        ({"task_name": "back", "target_value": 1.0}, "takes no target"),
        ({"task_name": "v"}, "ambiguous"),
        ({"task_name": "v", "target_value": 1.0}, r"vector of 2 outputs; expected \(3, 2\)"),
        ({"target_value": [1.0, 2.0]}, r"target_value has shape \(2,\); expected \(3, 1\)"),
        ({"target_value": float("nan")}, "target_value must be finite"),
        ({"target_value": 1.0, "task_targets": {"a": 1.0}}, "not both"),
        ({"task_targets": {"z": 1.0}}, "unknown task in task_targets 'z'"),
        ({"mode": "maximum"}, "did you mean 'max'"),
        ({"space": "output"}, "input, latent"),
        ({"ae_task_name": "a"}, "reconstruction head"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"steps": -1}, "steps"),
        ({"lr": 0.0}, "lr"),
        ({"perturbation_std": -0.1}, "perturbation_std"),
        ({"bounds": [(0, 1)]}, "expected 2 pairs"),
        ({"bounds": [(1, 0), (0, 1)]}, "lower <= upper"),
        ({"fixed": ["z"]}, "unknown column 'z'"),
        ({"fixed": {"p": 9.0}}, "outside its bounds"),
        ({"density_penalty": -1.0}, "must not be negative"),
        ({"task_weights": {"z": 1.0}}, "unknown task in task_weights"),
    ],
)
def test_errors_name_the_argument(model, change, message):
    arguments = {"task_name": "a", "initial_input": X_0, "steps": 2, **change}
    with pytest.raises(ValueError, match=message) as caught:
        model.optimize_latent(**arguments)
    assert isinstance(caught.value, GenoptError)


def test_latent_without_reconstruction_and_goal_errors(model):
    with pytest.raises(GenoptError, match="needs ae_task_name"):
        FlexibleMultiTaskModel(2, {"a": "regression"}).optimize_latent(
            "a", [[0.0, 0.0]], space="latent"
        )
    goal = Goal({"b": [1.0, 2.0]}, model.x_space, model.y_space)
    with pytest.raises(GenoptError, match="3 rows for 2 goals"):
        model.optimize_latent(initial_input=X_0, goal=goal)
    with pytest.raises(GenoptError, match="not both"):
        model.optimize_latent("a", X_0, goal=goal)
    with pytest.raises(UnknownNameError):
        model.optimize_latent(mode={"a": "min", "zz": "max"}, initial_input=X_0)


def test_identical_restarts_warn(model):
    with pytest.warns(UserWarning, match="all restarts are the same"):
        model.optimize_latent("a", X_0, steps=1, num_restarts=3, perturbation_std=0.0)
