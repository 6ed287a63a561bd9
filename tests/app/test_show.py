"""What a study prints: which columns of its table, and which are only named."""

from __future__ import annotations

import pandas as pd
import pytest

from genopt.app.show import designs_table, shown_columns
from genopt.goal import Goal
from genopt.space import Space

X = Space.of(a=(0.0, 1.0))
Y = Space.of(f=(0.0, 1.0), g=(-1.0, 1.0), h=(-1.0, 1.0), i=(-1.0, 1.0), j=(-1.0, 1.0))
LIMITS = {name: {"at_most": 0.0} for name in "ghij"}


def frame(**verified: float) -> pd.DataFrame:
    columns = {"goal": [0], "a": [0.5]}
    for name in "fghij":
        columns[f"{name}_predicted"] = [-0.5]
        columns[f"{name}_verified"] = [verified.get(name, -0.25)]
    return pd.DataFrame(columns)


def headers(top: pd.DataFrame, verified: bool) -> list[str]:
    return [str(c.header) for c in designs_table(top, X, ["f"], verified).columns]


def test_of_many_columns_limits_that_all_designs_keep_are_only_named():
    goal = Goal({"f": "min", **LIMITS}, X, Y)
    assert shown_columns(goal, frame(), True) == (["f"], ["g", "h", "i", "j"])
    # one that is broken is shown, by the simulator's word where there is one
    assert shown_columns(goal, frame(h=0.1), True) == (["f", "h"], ["g", "i", "j"])
    assert shown_columns(goal, frame(h=0.1), False) == (["f"], ["g", "h", "i", "j"])
    few = Goal({"f": "min", "g": {"at_most": 0.0}}, X, Y)
    assert shown_columns(few, frame(), True) == (["f", "g"], [])


@pytest.mark.parametrize(("value", "told"), [(-0.25, True), (-0.5, False)])
def test_a_claim_that_the_simulator_made_is_not_shown_as_a_prediction(value, told):
    assert ("f\npredicted" in headers(frame(f=value), True)) is told
    assert "f\nverified" in headers(frame(f=value), True)


def test_the_kind_of_a_stationary_point_leads():
    assert headers(frame().assign(kind="saddle"), True)[0] == "kind"
