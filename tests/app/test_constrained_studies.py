"""Studies with constraints: every design keeps them, and what cannot be is said before training."""

import pytest
import torch

from genopt import Candidates, GenoptError, compose, run_study

from .conftest import SMALL, TINY

pytestmark = pytest.mark.e2e
PLAIN = [*SMALL, "logger=none", "figures=false", "problem=plug_flow", "routine.samples=60"]


@pytest.mark.parametrize("model", ["mixture", "flow"])
def test_every_design_of_a_study_keeps_its_rules(model, tmp_path):
    rules = "routine.constraints=['k1 - k2 == 0.5', 'k1 * k2 <= 4']"
    result = run_study(compose([*TINY[model], *PLAIN, rules]), tmp_path)
    k1, k2 = Candidates.load(tmp_path / "candidates.parquet").x[0].T
    assert len(k1) == 60
    assert float((k1 - k2 - 0.5).abs().max()) <= 1e-8
    assert float((k1 * k2).max()) <= 4.0 + 1e-8
    assert result.metrics["constraints/largest_violation"] <= 1e-8
    assert 0 < result.metrics["constraints/acceptance"] <= 1
    assert "all designs keep the constraints" in result.verdict


def test_a_function_of_ones_own_is_a_rule(genopt, tmp_path):
    (tmp_path / "my_rules.py").write_text(
        "def product(x):\n    return x[..., 0] * x[..., 1] - 1.0\n"
    )
    rule = "{function: my_rules.product, kind: equality, differentiable: false}"
    done = genopt(*TINY["mixture"], *PLAIN, f"routine.constraints=[{rule}]")
    assert done.returncode == 0, done.stderr
    (found,) = tmp_path.glob("outputs/plug_flow/*/candidates.parquet")
    product = Candidates.load(found).x.prod(-1)
    torch.testing.assert_close(product, torch.ones_like(product), atol=1e-8, rtol=0)


def test_rules_that_contradict_are_refused_before_training(tmp_path):
    rules = "routine.constraints=['k1 + k2 <= 1', 'k1 >= 1.5']"
    with pytest.raises(GenoptError, match=r"no design keeps 'k1 \+ k2 <= 1' and 'k1 >= 1.5'"):
        run_study(compose([*TINY["mixture"], *PLAIN, rules]), tmp_path / "s")
    assert not (tmp_path / "s" / "model.ckpt").exists()


def test_a_rule_without_quotes_is_told_how_to_be_written(genopt):
    done = genopt("routine.constraints=[a + b <= 1]")
    assert done.returncode != 0
    assert "put text with signs or spaces in quotes" in done.stdout + done.stderr
