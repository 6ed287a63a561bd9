"""`genopt-bench`: suites are read with care, run by multiruns, shown with aims."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from genopt.analysis.design_figures import design_figures
from genopt.app.bench import command, main, way_folder
from genopt.app.compose import compose
from genopt.app.suite import SUITES, read_suite
from genopt.candidates import Candidates
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems import PengRobinson
from genopt.routines.nearest import nearest


@pytest.mark.parametrize("name", sorted(file.stem for file in SUITES.glob("*.yaml")))
def test_every_way_of_every_suite_composes(name):
    suite = read_suite(name)
    for case in suite.cases:
        for way in case.ways:
            config = compose([*suite.everywhere, *way.overrides])
            assert config.problem._target_.startswith("genopt.problems.")


def _suite(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return str(path)


def test_a_wrong_key_is_named(tmp_path):
    own = _suite(tmp_path, "problems:\n  alloy:\n    figure: [x_error]\n")
    with pytest.raises(GenoptError, match=r"own\.yaml: alloy.*'figure'.*figures"):
        read_suite(own)
    own = _suite(tmp_path, "problems:\n  alloy:\n    ways:\n      a: {after: b, overrides: []}\n")
    with pytest.raises(GenoptError, match="'b'"):
        read_suite(own)
    with pytest.raises(GenoptError, match="quick"):
        read_suite("quik")
    with pytest.raises(GenoptError, match="gasoline"):
        read_suite("quick").only(["gasolene_blend"], None)


def test_a_way_brings_the_one_whose_model_it_uses():
    suite = read_suite("quick").only(["peng_robinson"], ["mixture, refined"])
    (case,) = suite.cases
    assert [way.name for way in case.ways] == ["mixture", "mixture, refined"]
    line = command(suite, case, case.ways[1], Path("out"), 2)
    first = way_folder(Path("out"), case, case.ways[0]).resolve()
    assert f"checkpoint='{first}/seed-${{seed}}/model.ckpt'" in line
    assert "seed=0,1" in line


def test_figures_of_designs_are_those_of_the_samples():
    problem = PengRobinson()
    goal = Goal({"r": 0.0}, problem.x_space, problem.y_space)
    roots = torch.stack([answer.x for answer in problem.answers])
    # ten designs at each root, off by .001 to either side
    off = torch.tensor([0.001, -0.001], dtype=torch.float64).repeat(15)[:, None]
    x = (roots.repeat_interleave(10, 0) + off)[None]
    designs = Candidates.from_claims(goal, x, torch.zeros(1, 30, 1)).verified_by(
        problem.simulate(x)
    )
    found = design_figures(designs, problem.answers, tolerance=0.01)
    assert found["mode_recall"] == 1.0
    assert found["x_bias"] == pytest.approx(0.0, abs=1e-12)
    assert found["x_std"] == pytest.approx(0.001)
    assert found["x_largest"] == pytest.approx(0.001)
    weights = [answer.weight for answer in problem.answers]
    assert found["weight_tv"] == pytest.approx(0.5 * sum(abs(w - 1 / 3) for w in weights))
    assert found["output_error"] == pytest.approx(float(problem.simulate(x).abs().mean()))
    assert design_figures(designs, radius=1e-9)["reached"] == 0.0
    assert math.isnan(found.get("nothing", math.nan))


def test_the_nearest_row_is_the_one_of_a_brute_force_search():
    problem = PengRobinson()
    table = problem.table(50)
    goal = Goal({"r": 0.0}, problem.x_space, problem.y_space)
    found = nearest(None, goal, table=table, rows=3)
    order = table.y[:, 0].abs().argsort()[:3]
    torch.testing.assert_close(found.x[0], table.x[order])
    torch.testing.assert_close(found.y_predicted[0], table.y[order])
    held = Goal({"r": 0.0, "Z": 0.5}, problem.x_space, problem.y_space)
    with pytest.raises(GenoptError, match="holds its columns"):
        nearest(None, held, table=table)


@pytest.mark.e2e
def test_the_quick_suite_runs_resumes_and_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["quick", "--out", str(tmp_path / "bench"), "--write", str(tmp_path / "page.md")]
    main(line)
    text = (tmp_path / "page.md").read_text()
    assert re.search(r"\| genopt, mixture \| \*\*\S+\*\* \| \*\*", text)
    assert re.search(r"\| genopt, mixture, refined \| \*\*\S+\*\* \| \*\*1\*\*", text)
    assert "| nearest training row |" in text
    capsys.readouterr()
    models = list((tmp_path / "bench").rglob("model.ckpt"))
    before = {path: path.stat().st_mtime_ns for path in models}
    assert before
    main(line)
    assert {path: path.stat().st_mtime_ns for path in models} == before


def test_a_way_that_fails_is_said_and_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = _suite(
        tmp_path,
        "seeds: 1\neverywhere: [logger=none, figures=false]\nproblems:\n  gasoline_blend:\n"
        "    figures: [x_bias]\n    ways:\n"
        "      bad: [model=mixture, model.regularization=-1]\n"
        "      good: [experiment=gasoline_blend, data.rows=200]\n",
    )
    with pytest.raises(SystemExit, match="1 of the ways failed"):
        main([own, "--out", str(tmp_path / "bench")])
    shown = capsys.readouterr().out
    assert "genopt, good" in shown
    assert "genopt, bad" not in shown


def test_an_interruption_ends_all_ways(tmp_path, monkeypatch):
    from genopt.app.main import main as genopt

    begun = []

    def interrupted():
        begun.append(1)
        raise KeyboardInterrupt

    # what the command itself makes of Ctrl-C in the middle of a study
    monkeypatch.setattr("genopt.app.main.hydra.main", lambda **_: lambda _: interrupted)
    monkeypatch.setattr("sys.argv", ["genopt", "problem=alloy"])
    with pytest.raises(SystemExit, match="interrupted") as stop:
        genopt()
    assert isinstance(stop.value.__context__, KeyboardInterrupt)
    begun.clear()
    with pytest.raises(SystemExit, match="genopt-bench: interrupted"):
        main(["quick", "--problems", "gasoline_blend", "--seeds", "1", "--out", str(tmp_path)])
    assert len(begun) == 1


def test_sigterm_ends_all_ways_even_in_the_middle_of_a_fit(tmp_path, monkeypatch):
    import signal

    from genopt.models.flow.matching import FlowMatching

    begun = []

    def terminated(*_):
        begun.append(1)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(FlowMatching, "on_train_start", terminated)
    before = signal.getsignal(signal.SIGTERM)
    suite = tmp_path / "own.yaml"
    suite.write_text(
        "title: Own\nseeds: 1\neverywhere: [figures=false, logger=none, data.rows=100]\n"
        "problems:\n  plug_flow:\n    figures: [output_error]\n    ways:\n"
        "      one: [model=flow, model.epochs=2]\n      two: [model=flow, model.epochs=3]\n"
    )
    with pytest.raises(SystemExit, match="genopt-bench: interrupted"):
        main([str(suite), "--out", str(tmp_path)])
    assert len(begun) == 1
    assert signal.getsignal(signal.SIGTERM) is before
