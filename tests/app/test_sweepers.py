"""Searches: spaces, objectives, going on after a kill, pruning; most studies are quick fakes."""

import importlib.util
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from genopt.app.folder import PRUNED, StudyFolder
from genopt.app.search.objective import _METRICS, read_objectives
from genopt.app.search.space import read_space
from genopt.app.search.state import watch_of
from genopt.errors import GenoptError

WORKER = Path(__file__).parent / "search_worker.py"
_spec = importlib.util.spec_from_file_location("search_worker", WORKER)
worker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker)
finish, search = worker.finish, worker.search
RATE = "tag(log,interval(1e-4,1e-1))"


def bowl(study, params):
    finish(study, **{"verified/best_loss": math.log10(params["model.learning_rate"] / 0.01) ** 2})


def saved(folder):
    return json.loads((folder / "search.json").read_text())


# -- the space -------------------------------------------------------------------------------------
def space(params, when=None, arguments=(), outside=None):
    return read_space(params, when or {}, list(arguments), (outside or {}).get)


def test_words_of_hydra_become_ranges():
    found = {
        d.key: d
        for d in space(
            {
                "a": "1,x,null",
                "b": "range(2,11,4)",
                "c": "range(0.0,0.5,0.1)",
                "d": "interval(-1,1)",
                "e": "int(interval(2,9))",
                "f": "tag(log,interval(1e-3,10))",
                "g": {"h": "choice([1,2],[3])"},
            }
        ).dimensions()
    }
    assert found["a"].choices == ("1", "x", "null")
    assert (found["b"].low, found["b"].high, found["b"].step, found["b"].whole) == (2, 10, 4, True)
    assert found["c"].high == pytest.approx(0.4)
    assert not found["c"].whole
    assert (found["d"].low, found["d"].high, found["d"].whole) == (-1, 1, False)
    assert found["e"].whole
    assert found["f"].log
    assert found["g.h"].choices == ("[1,2]", "[3]")


def test_a_number_is_short_and_inside():
    (d,) = space({"a": "tag(log,interval(0.00123446,0.1))"}).dimensions()
    assert d.text(0.0123456789) == "0.01235"
    # four digits would lie below the interval
    assert float(d.text(0.00123446)) == 0.00123446
    assert [d.holds(v) for v in (0.01, 0.2, None, "x", True)] == [0.01, None, None, None, None]


def test_keys_of_a_condition_are_never_set_for_others():
    found = space(
        {"model": "flow,mixture"},
        {
            "model=flow": {"network": "adaln,concat"},
            "model=flow network=adaln": {"network.width": "32,64"},
            "model=mixture,gmm": {"model.max_components": "range(2,9)"},
        },
    )
    generator = random.Random(0)
    seen = Counter(
        frozenset(word.partition("=")[0] for word in words)
        for words in (found.walk(lambda d: generator.choice(d.probes())) for _ in range(200))
    )
    assert set(seen) == {
        frozenset({"model", "network", "network.width"}),
        frozenset({"model", "network"}),
        frozenset({"model", "model.max_components"}),
    }


def test_the_command_line_wins():
    params = {"a": "1,2", "b": "1,2", "model": "flow,mixture"}
    when = {"model=flow": {"c": "1,2"}, "model=mixture": {"d": "1,2"}}
    found = space(params, when, ["a=7", "b=5,6,7", "model=flow"], {"model": "flow"})
    walked = found.walk(lambda d: d.choices[-1])
    assert set(walked) == {"a=7", "model=flow", "b=7", "c=2"}
    # a choice without the engine of a condition leaves that condition out
    assert len(list(space(params, when, ["model=mixture,ensemble"]).reachable())) == 2


def test_one_key_under_two_conditions_has_two_ranges():
    when = {"model=a": {"lr": "interval(0,1)"}, "model=b": {"lr": "interval(5,6)"}}
    names = {d.name for d in space({"model": "a,b"}, when).dimensions()}
    assert names == {"model", "lr if model=a", "lr if model=b"}
    both = {"model=a": {"lr": "1,2"}, "model=a,b": {"lr": "1,2"}}
    with pytest.raises(GenoptError, match=r"gives lr twice where model=a,b holds"):
        space({"model": "a,b"}, both).walk(lambda d: d.choices[0])


@pytest.mark.parametrize(
    ("params", "when", "arguments", "message"),
    [
        ({}, {}, [], "nothing to search"),
        ({"a": "1,2"}, {}, ["a=3"], "nothing to search"),
        ({"a": "3"}, {}, [], "nothing to search"),
        ({"a": "interval(2,2)"}, {}, [], "is empty"),
        ({"a": "range(3,1)"}, {}, [], "is empty"),
        ({"a": "tag(log,interval(0,1))"}, {}, [], "above 0"),
        ({"seed": "0,1"}, {}, [], "luckiest"),
        ({}, {}, ["seed=0,1"], "luckiest"),
        ({"m": "1,2"}, {"m": {"a": "1,2"}}, [], "has to read key=value"),
        ({"m": "1,2"}, {"m=1": "1,2"}, [], "needs keys below it"),
        ({"m": "interval(0,1)"}, {"m=1": {"a": "1,2"}}, [], "varies as a number"),
    ],
)
def test_a_space_that_cannot_be_is_refused(params, when, arguments, message):
    with pytest.raises(GenoptError, match=message):
        space(params, when, arguments)


# -- objectives ------------------------------------------------------------------------------------
def test_directions_follow_the_metric():
    found = read_objectives(["held_out/r2/density", "fit_seconds"], None)
    assert [o.direction for o in found] == ["maximize", "minimize"]
    assert read_objectives("diversity", "minimize")[0].direction == "minimize"


@pytest.mark.parametrize(
    ("names", "directions", "message"),
    [
        ("verified/bets_loss", None, "did you mean 'verified/best_loss'"),
        ("held_out/r2", None, "unknown metric"),
        ([], None, "needs different metrics"),
        (["x_rmse", "x_rmse"], None, "needs different metrics"),
        (["auto", "x_rmse"], None, "stands alone"),
        ("x_rmse", "minimise", "did you mean 'minimize'"),
        (["x_rmse", "weight_tv"], ["minimize"], "1 entries"),
        ("held_out/coverage_90/density", None, "no better direction"),
    ],
)
def test_objectives_that_cannot_be_are_refused(names, directions, message):
    with pytest.raises(GenoptError, match=message):
        read_objectives(names, directions)


def test_numbers_come_from_the_folder(tmp_path):
    study = StudyFolder(tmp_path)
    study.mark(fit={"seconds": 2.0, "cpu_seconds": 3.0})
    study.write("history.json", [{"validation/loss": v} for v in (5.0, 1.5, 2.0)])
    study.write("metrics.json", {"held_out/r2/a": 0.5, "held_out/accuracy/b": 0.9, "x_rmse": 1.0})

    def value(name):
        return read_objectives(name, None)[0].value(study)

    # 1 - .5 and 1 - .9
    assert value("held_out_error") == pytest.approx(0.3)
    assert value("auto") == pytest.approx(0.3)
    assert (value("validation_loss"), value("fit_cpu_seconds"), value("x_rmse")) == (1.5, 3.0, 1.0)
    with pytest.raises(GenoptError, match="unknown metric of this study 'weight_tv'"):
        value("weight_tv")
    study.write("metrics.json", {"claimed/best_loss": 0.1, "x_rmse": math.nan})
    assert value("best_loss") == 0.1
    with pytest.raises(GenoptError, match="validation_loss"):
        value("auto")
    with pytest.raises(GenoptError, match="x_rmse is nan"):
        value("x_rmse")
    study.write("metrics.json", {"claimed/best_loss": 0.1, "verified/best_loss": 0.4})
    assert (value("auto"), value("best_loss")) == (0.4, 0.4)


# -- a search --------------------------------------------------------------------------------------
def test_a_search_finds_the_bottom_and_starts_from_the_default(tmp_path):
    report = search(tmp_path, ["hydra.sweeper.n_trials=12"], bowl, **{"model.learning_rate": RATE})
    trials = saved(tmp_path)["trials"]
    assert [t["number"] for t in trials] == list(range(12))
    # what conf/model/multitask.yaml says
    assert trials[0]["params"] == {"model.learning_rate": 0.003}
    assert trials[0]["values"] == pytest.approx([math.log10(0.3) ** 2])
    (best,) = report.best
    assert best["values"][0] == min(t["values"][0] for t in trials) < 0.05
    assert best["command"] == f"genopt model.learning_rate={best['params']['model.learning_rate']}"
    assert saved(tmp_path)["importances"]["auto"] == {"model.learning_rate": 1.0}
    launched = (tmp_path / "launched.txt").read_text().split()
    assert len(set(launched)) == len(launched) == 12
    # more trials go on in the same folder, and no point comes twice
    search(tmp_path, ["hydra.sweeper.n_trials=13"], bowl, **{"model.learning_rate": RATE})
    more = saved(tmp_path)["trials"]
    assert more[:12] == trials
    assert len({json.dumps(t["params"]) for t in more}) == len(more) == 13
    with pytest.raises(GenoptError, match=r"holds a search with other space.*hydra\.sweep\.dir"):
        search(tmp_path, [], bowl, **{"model.learning_rate": "interval(0.1,0.2)"})


def test_a_small_space_is_tried_out_once(tmp_path, capsys):
    def run(study, params):
        finish(study, **{"verified/best_loss": params["model.epochs"]})

    words = ["hydra.sweeper.n_trials=9", "hydra.sweeper.n_jobs=2"]
    search(tmp_path, words, run, **{"model.epochs": "3,5", "encoder.dropout": "0.1,0.2"})
    trials = saved(tmp_path)["trials"]
    tried = {tuple(t["params"].values()) for t in trials}
    assert tried == {(3, 0.1), (3, 0.2), (5, 0.1), (5, 0.2)}
    assert len(trials) == 4
    assert "every point of the space was tried" in capsys.readouterr().out


def test_failed_trials_count_and_several_objectives_make_a_front(tmp_path):
    def run(study, params):
        rate = params["model.learning_rate"]
        if rate > 0.03:
            study.mark(state="failed", error="training diverged")
            return
        # two metrics that contradict each other, one of them to be large
        finish(study, **{"fit_seconds": rate, "verified/satisfied": min(rate, 0.01)})

    words = [
        "hydra.sweeper.n_trials=12",
        "hydra.sweeper.objective=[fit_seconds,verified/satisfied]",
        "hydra/sweeper/sampler=random",
    ]
    search(tmp_path, words, run, **{"model.learning_rate": RATE})
    found = saved(tmp_path)
    assert found["directions"] == ["minimize", "maximize"]
    states = Counter(t["state"] for t in found["trials"])
    wrong = [t for t in found["trials"] if t["params"]["model.learning_rate"] > 0.03]
    assert states == {"finished": 12 - len(wrong), "failed": len(wrong)}
    assert len(wrong) > 0
    assert {t["error"] for t in wrong} == {"training diverged"}
    # beyond .01 a longer fit gains nothing
    above = sorted(
        v for t in found["trials"] if t["values"] and (v := t["params"]["model.learning_rate"]) > 0
    )
    front = [v for v in above if v <= 0.01] + [v for v in above if v > 0.01][:1]
    best = [found["trials"][n]["params"]["model.learning_rate"] for n in found["best"]]
    assert sorted(best) == front
    # a study that was mended since counts, in the place of the one that failed
    mended = tmp_path / wrong[0]["folder"]
    finish(StudyFolder(mended), **{"fit_seconds": 0.0, "verified/satisfied": 1.0})
    search(tmp_path, words, run, **{"model.learning_rate": RATE})
    again = saved(tmp_path)
    assert again["best"] == [wrong[0]["number"]]
    assert len(again["trials"]) == 12


def test_a_search_gives_up_where_all_fails(tmp_path):
    def run(study, _):
        study.mark(state="failed", error="no such file: films.csv")

    with pytest.raises(GenoptError, match=r"last 2 trials failed.*films\.csv"):
        search(tmp_path, ["hydra.sweeper.give_up_after=2"], run, **{"model.learning_rate": RATE})
    assert len(saved(tmp_path)["trials"]) == 2

    def lacks(study, _):
        finish(study, **{"claimed/best_loss": 1.0})

    words = ["hydra.sweeper.objective=x_rmse"]
    with pytest.raises(GenoptError, match="unknown metric of this study 'x_rmse'"):
        search(tmp_path / "other", words, lacks, **{"model.learning_rate": RATE})


def test_a_launcher_that_dies_fails_its_trials_alone(tmp_path):
    calls = []

    def run(study, params):
        calls.append(study.path.name)
        if len(calls) == 2:
            raise OSError("a worker was killed")
        bowl(study, params)

    search(tmp_path, ["hydra.sweeper.n_trials=4"], run, **{"model.learning_rate": RATE})
    trials = saved(tmp_path)["trials"]
    assert [t["state"] for t in trials] == ["finished", "failed", "finished", "finished"]
    assert "a worker was killed" in trials[1]["error"]


@pytest.mark.parametrize(
    ("words", "params", "when", "message"),
    [
        ([], {"model.epohcs": "1,2"}, {}, "did you mean 'model.epochs'"),
        ([], {"model.epochs": "interval(1,8)"}, {}, r"search space: model\.epochs.*Integer"),
        ([], {"encoder": "mlp,resdual"}, {}, "did you mean 'residual'"),
        ([], {"network.width": "32,64"}, {}, r"no effect with model=multitask.*model=flow"),
        ([], {"model": "flow,mixture", "model.epochs": "1,2"}, {}, r"model\.epochs"),
        ([], {"model.epochs": "1,2"}, {"model=flo": {"model.ema": "0.9,0.99"}}, "'flow'"),
        ([], {"model.epochs": "1,2"}, {"engine=a": {"model.ema": "0.9,0.99"}}, "'engine'"),
        (["hydra.sweeper.n_trials=0"], {"model.epochs": "1,2"}, {}, "n_trials must be at least 1"),
        (["hydra.sweeper.n_jobs=0"], {"model.epochs": "1,2"}, {}, "n_jobs must be at least 1"),
        (["hydra.sweeper.seed=-1"], {"model.epochs": "1,2"}, {}, "seed must be a number from 0"),
        (["hydra.sweeper.pruning=medain"], {"model.epochs": "1,2"}, {}, "mean 'median'"),
        (["+hydra.sweeper.sampler.x=1"], {"model.epochs": "1,2"}, {}, r"sweeper\.sampler.*'x'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_job(tmp_path, words, params, when, message):
    with pytest.raises(GenoptError, match=message):
        search(tmp_path / "s", words, bowl, when=when, **params)
    assert not (tmp_path / "s" / "launched.txt").exists()


# -- killed ----------------------------------------------------------------------------------------
def test_a_killed_search_goes_on_as_if_nothing_had_happened(tmp_path):
    folder, calm = tmp_path / "killed", tmp_path / "calm"
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(folder)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    launched = folder / "launched.txt"
    while not (launched.exists() and len(launched.read_text().split()) >= 4):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {p.parent.name: p.read_text() for p in folder.glob("*/status.json")}
    done = len(launched.read_text().split())
    assert 3 <= done < 9

    worker.kill_me(folder)
    trials = saved(folder)["trials"]
    assert len(trials) == 9
    assert all(t["state"] == "finished" for t in trials)
    # finished studies were neither run again nor overwritten
    runs = Counter(launched.read_text().split())
    assert set(runs) == {t["folder"] for t in trials}
    assert all(runs[name] == 1 for name in before)
    assert sum(runs.values()) in (9, 10)
    assert all((folder / name / "status.json").read_text() == text for name, text in before.items())

    # and the search proposes what it would have proposed anyway
    worker.kill_me(calm)
    assert [t["params"] for t in saved(calm)["trials"]] == [t["params"] for t in trials]
    assert saved(calm)["best"] == saved(folder)["best"]


def test_two_processes_do_not_run_one_search(tmp_path):
    def run(study, params):
        with pytest.raises(GenoptError, match=r"search in .* is already running in process"):
            search(tmp_path, [], bowl, **{"model.learning_rate": RATE})
        bowl(study, params)

    search(tmp_path, ["hydra.sweeper.n_trials=1"], run, **{"model.learning_rate": RATE})
    assert len(saved(tmp_path)["trials"]) == 1


# -- pruning ---------------------------------------------------------------------------------------
def test_pruning_compares_fits_of_one_kind(tmp_path):
    import torch

    from genopt.app.search.pruning import Pruning
    from genopt.app.search.state import PrunedError
    from genopt.models.options import FitOptions
    from genopt.models.training import TabularModule, fit

    torch.set_num_threads(1)
    epochs = {}

    class Line(TabularModule):
        """Learns a number; a small learning rate does not come far."""

        def __init__(self, rate):
            super().__init__(learning_rate=rate, schedule="constant", warmup=0.0)
            self.number = torch.nn.Parameter(torch.zeros(1))
            self.scale = 1.0

        def batch_loss(self, x):
            return self.scale * (self.number - x).square().mean()

    def run(study, params):
        watch = watch_of(study.path)
        module = Line(params["model.learning_rate"])
        # losses of another kind of fit are all larger than those of the first kind
        module.scale = 1.0 if params["time_sampling"] == "uniform" else 1e6
        rows = torch.ones(8, 1)
        options = FitOptions(callbacks=[Pruning(watch)])
        try:
            fit(module, (rows,), (rows,), epochs=10, batch_size=8, options=options)
        except PrunedError as error:
            study.mark(state=PRUNED, error=str(error))
            epochs[study.path.name] = module.current_epoch + 1
            return
        # to be large: the direction of the objective is not that of the losses
        finish(study, **{"verified/satisfied": params["model.learning_rate"]})
        epochs[study.path.name] = module.current_epoch

    words = [
        "model=flow",
        "hydra.sweeper.pruning=median",
        "hydra.sweeper.pruners.median.n_startup_trials=2",
        "hydra.sweeper.pruners.median.n_warmup_steps=0",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.objective=verified/satisfied",
        "hydra.sweeper.n_trials=9",
        "hydra.sweeper.give_up_after=null",
    ]
    search(
        tmp_path,
        words,
        run,
        **{"model.learning_rate": "tag(log,interval(1e-3,1))", "time_sampling": "uniform,power"},
    )
    trials = saved(tmp_path)["trials"]
    pruned = [t for t in trials if t["state"] == "pruned"]
    assert pruned
    assert all(epochs[t["folder"]] < 10 for t in pruned)
    assert all(t["values"] is None for t in pruned)
    finished = [t for t in trials if t["state"] == "finished"]
    assert all(epochs[t["folder"]] == 10 for t in finished)
    for kind in ("uniform", "power"):
        rates = [
            (t["params"]["model.learning_rate"], t["state"])
            for t in trials
            if t["params"]["time_sampling"] == kind
        ]
        # the first two of each kind are never pruned, however large the losses of their kind are
        assert [state for _, state in rates[:2]] == ["finished", "finished"]
        # after Adam's first step a larger rate is nearer: one that is the largest so far stays
        for n, (rate, state) in enumerate(rates):
            if rate == max(r for r, _ in rates[: n + 1]):
                assert state == "finished"
    assert watch_of(tmp_path / trials[0]["folder"]) is None


@pytest.mark.e2e
def test_a_real_search_prunes_a_real_study(genopt, tmp_path):
    words = [
        "-m",
        "hydra/sweeper=optuna",
        "hydra.sweeper.pruning=median",
        "model=multitask",
        "problem=branin",
        "data.rows=60",
        "progress=false",
        "figures=false",
        "logger=none",
        "reach=0",
        "routine.starts=4",
        "routine.restarts=2",
        "routine.steps=5",
        "model.epochs=40",
        # the first has the default, the second learns nothing
        "model.learning_rate=0.003,1e-9",
        "hydra.sweeper.pruners.median.n_startup_trials=1",
        "hydra.sweeper.pruners.median.n_warmup_steps=20",
        "hydra.sweeper.n_trials=2",
    ]
    done = genopt(*words)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "multirun").glob("*")
    first, second = saved(folder)["trials"]
    assert (first["state"], second["state"]) == ("finished", "pruned"), done.stdout
    study = StudyFolder(folder / second["folder"])
    assert study.state == "pruned"
    assert "lags behind" in study.status["error"]
    assert not (study.path / "model.ckpt").exists()
    assert first["command"] in done.stdout


# -- what is shipped -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["mixture", "multitask", "ensemble", "flow", "engines"])
def test_shipped_spaces_compose_and_hold_the_default(tmp_path, name, capsys):
    def run(study, _):
        finish(study, **{"verified/best_loss": 1.0})

    words = [f"hparams_search={name}", "hydra.sweeper.n_trials=1"]
    report = search(tmp_path, words, run)
    assert "outside the space" not in capsys.readouterr().out
    assert len(report.result["trials"]) == 1


def test_the_catalogue_knows_what_studies_write():
    """Every name that a study of the suite wrote has an entry, and a direction if it has one."""
    written = [
        "fit_seconds",
        "held_out/r2/density",
        "judge_held_out/rmse/f",
        "calibration/ranks/x",
        "routine/calls",
        "folds/rmse/f",
    ]
    for name in written:
        read_objectives(name, "minimize")
    assert set(_METRICS.values()) == {"minimize", "maximize", None}


def test_a_search_keeps_its_folder_while_its_budget_grows():
    from genopt.app.compose import sweep_folder

    def folder(*words):
        return sweep_folder(["-m", "hydra/sweeper=optuna", "model=mixture", *words])

    assert folder("hydra.sweeper.n_trials=5") == folder("hydra.sweeper.n_trials=50") == folder()
    assert folder("hydra/launcher=joblib", "hydra.sweeper.n_jobs=2") == folder()
    assert folder("hydra.sweeper.objective=x_rmse") != folder()
    assert sweep_folder(["-m", "model=mixture"]) != folder()
