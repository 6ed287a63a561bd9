"""No model is saved, loaded and refused like any other."""

from __future__ import annotations

import pytest

from genopt.errors import GenoptError
from genopt.models.nothing import Nothing
from genopt.models.options import FitOptions
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.peng_robinson import PengRobinson
from genopt.protocols import ConditionalModel, ForwardModel


def test_it_comes_back_as_it_was(tmp_path):
    problem = GasolineBlend()
    model = Nothing(problem.x_space, problem.y_space, seed=3)
    again = Nothing.load(model.save(tmp_path / "deep" / "model.ckpt"))
    assert (again.x_space, again.y_space) == (problem.x_space, problem.y_space)


def test_it_neither_predicts_nor_draws():
    problem = PengRobinson()
    model = Nothing(problem.x_space, problem.y_space)
    model.fit_table(problem.table(4), FitOptions())
    assert not isinstance(model, ForwardModel)
    assert not isinstance(model, ConditionalModel)


def test_other_columns_and_files_are_refused(tmp_path):
    problem = PengRobinson()
    model = Nothing(problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match="x columns x1, x2, x3, l1, l2; expected Z"):
        model.fit_table(GasolineBlend().table(4), FitOptions())
    with pytest.raises(GenoptError, match="does not exist"):
        Nothing.load(tmp_path / "none.ckpt")
    for text in ("not json", "[]", "{}", '{"format": "other"}'):
        (tmp_path / "wrong.ckpt").write_text(text)
        with pytest.raises(GenoptError, match="was not written by model=none"):
            Nothing.load(tmp_path / "wrong.ckpt")
