"""Two studies, or two sweeps, side by side: what is said to differ is what was changed."""

import copy
import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from genopt.app.compare import Comparison, SweepComparison, compare
from genopt.app.compare_show import show_comparison
from genopt.app.jobs import PlannedJob, record_jobs
from genopt.errors import GenoptError

CONFIG = {
    "problem": {"_target_": "genopt.problems.plug_flow.PlugFlow", "case": "S1"},
    "model": {"epochs": 10, "hidden": [64, 64], "heads": {"a": {"loss": None}}},
    "seed": 0,
    "threads": 1,
    "paths": {"study": "somewhere"},
}
METRICS = {"verified/best_loss": 0.5, "r2/F_A": 0.9, "gap": math.nan, "fit_seconds": 1.0}
VERSIONS = {"versions": {"torch": "2.6"}, "git": {"commit": "abc", "changed": False}}


def study(path, config=CONFIG, metrics=METRICS, versions=VERSIONS, state="finished", figures=()):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "environment.json").write_text(json.dumps(versions))
    (path / "status.json").write_text(json.dumps({"state": state, "verdict": f"was {state}"}))
    (path / "figures").mkdir()
    for name, content in dict(figures).items():
        (path / "figures" / f"{name}.png").write_bytes(content)
    return path


def changed(data, **leaves):
    """A copy with other leaves; dots are written as two underscores."""
    out = copy.deepcopy(data)
    for name, value in leaves.items():
        *above, last = name.split("__")
        node = out
        for key in above:
            node = node[key]
        node[last] = value
    return out


def shown(found):
    text = io.StringIO()
    show_comparison(found, Console(file=text, width=140))
    return text.getvalue()


def test_a_study_is_the_same_as_itself_somewhere_else_at_another_time(tmp_path):
    a = study(tmp_path / "a", figures={"front": b"1"})
    later = changed(CONFIG, paths__study="elsewhere", threads=4)
    b = study(tmp_path / "b", later, changed(METRICS, fit_seconds=9.0), figures={"front": b"1"})
    found = compare(a, b)
    assert found.same
    # NaN is NaN, places are no settings, threads cannot change a result
    assert [(c.name, c.a, c.b, c.matters) for c in found.settings] == [("threads", 1, 4, False)]
    assert [(c.name, c.ratio) for c in found.metrics] == [("fit_seconds", 9.0)]
    assert "nothing differs but times and places" in shown(found)


def test_everything_that_differs_is_named(tmp_path):
    pictures = {"both": b"1", "same": b"=", "only_a": b"1"}
    a = study(tmp_path / "a", figures=pictures)
    b = study(
        tmp_path / "b",
        changed(CONFIG, model__hidden=[64], model__heads__a={}, model__lr=0.1, problem__case="S2"),
        changed(METRICS, **{"verified/best_loss": 1.5, "r2/F_A": -0.9, "new": 3.0}),
        changed(VERSIONS, versions__torch="2.13", git__changed=True),
        state="failed",
        figures={"both": b"2", "same": b"=", "only_b": b"1"},
    )
    found = compare(a, b)
    assert isinstance(found, Comparison)
    assert not found.same
    assert {c.name: (c.a, c.b) for c in found.settings} == {
        "model.hidden": ([64, 64], [64]),
        "model.heads.a.loss": (None, None),
        "model.heads.a": (None, {}),
        "model.lr": (None, 0.1),
        "problem.case": ("S1", "S2"),
    }
    assert {c.name: (c.a, c.b, c.ratio) for c in found.metrics} == {
        "verified/best_loss": (0.5, 1.5, 3.0),
        "r2/F_A": (0.9, -0.9, None),
        "new": (None, 3.0, None),
    }
    assert {c.name for c in found.environment} == {"versions.torch", "git.changed"}
    assert found.figures == {"both.png": "both", "only_a.png": "a", "only_b.png": "b"}
    assert found.states == ("finished", "failed")
    text = shown(found)
    for said in ("problem.case", "S2", "2.13", "only_b.png: only in B", "was failed", "1.5"):
        assert said in text
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["metrics"][-1]["ratio"] == 3.0
    assert plain["same"] is False


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 2), max_size=5),
    st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 2), max_size=5),
)
def test_the_other_way_round_a_and_b_change_places(tmp_path_factory, a, b):
    root = tmp_path_factory.mktemp("pair")
    first, second = study(root / "a", a, a), study(root / "b", b, b)
    found, mirrored = compare(first, second), compare(second, first)
    for one, other in ((found.settings, mirrored.settings), (found.metrics, mirrored.metrics)):
        assert [(c.name, c.a, c.b) for c in one] == [(c.name, c.b, c.a) for c in other]
        assert {c.name for c in one} == {k for k, _ in set(a.items()) ^ set(b.items())}
    assert found.same is (a == b)


def sweep(root, jobs):
    """A sweep of studies: overrides to (configuration, best loss)."""
    plan = []
    for number, (words, (config, loss)) in enumerate(jobs.items()):
        name = f"job{number}"
        metrics = {"verified/best_loss": loss}
        study(root / name, config, metrics)
        plan.append(PlannedJob(number, name, tuple(words.split())))
    record_jobs(root, plan, command=[])
    return root


def test_jobs_of_two_sweeps_find_each_other(tmp_path):
    a = sweep(tmp_path / "a", {
        "epochs=10 seed=0": (changed(CONFIG, seed=0), 1.0),
        "epochs=10 seed=1": (changed(CONFIG, seed=1), 2.0),
        "epochs=10 seed=2": (changed(CONFIG, seed=2), 3.0),
    })  # fmt: skip
    b = sweep(tmp_path / "b", {
        "epochs=20 seed=1 progress=false": (changed(CONFIG, seed=1, model__epochs=20), 4.0),
        "epochs=20 seed=0": (changed(CONFIG, seed=0, model__epochs=20), 5.0),
        "epochs=20 seed=3": (changed(CONFIG, seed=3, model__epochs=20), 6.0),
    })  # fmt: skip
    found = compare(a, b)
    assert isinstance(found, SweepComparison)
    assert {k: (p.loss.a, p.loss.b) for k, p in found.pairs.items()} == {
        "seed=0": (1.0, 5.0), "seed=1": (2.0, 4.0),
    }  # fmt: skip
    assert found.only_a == ("epochs=10 seed=2",)
    assert found.only_b == ("epochs=20 seed=3",)
    assert [(c.name, c.a, c.b) for c in found.shared] == [("model.epochs", 10, 20)]
    assert not found.same
    text = shown(found)
    assert "only in A: epochs=10 seed=2" in text
    assert "model.epochs" in text
    json.dumps(found.to_dict())
    assert compare(a, a).same


def test_what_cannot_be_compared_is_said_so(tmp_path):
    one = study(tmp_path / "one")
    many = sweep(tmp_path / "many", {"seed=0": (CONFIG, 1.0)})
    with pytest.raises(GenoptError, match=r"is a study and .* is a sweep"):
        compare(one, many)
    with pytest.raises(GenoptError, match="neither"):
        compare(one, tmp_path)


def test_a_study_that_never_ran_is_compared_as_far_as_it_goes(tmp_path):
    a, b = study(tmp_path / "a"), tmp_path / "b"
    b.mkdir()
    (b / "status.json").write_text('{"state": "failed", "error": "no"}')
    found = compare(a, b)
    assert found.states == ("finished", "failed")
    assert found.loss is None
    assert {c.name for c in found.settings} >= {"model.epochs", "seed"}
