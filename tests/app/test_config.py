"""Every shipped option composes, builds its part and agrees with the code that it describes."""

import inspect
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
from hydra.utils import get_method, get_object
from omegaconf import OmegaConf
from pyarrow import parquet

from genopt.app.compose import compose, compose_all, conf_folder, swept_overrides
from genopt.app.parts import make
from genopt.app.schema.groups import SCHEMAS
from genopt.errors import GenoptError

CONF = conf_folder()
OPTIONS = sorted(
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("hydra",)
)
NEEDED = {
    ("problem", "table"): ["problem.path=t.csv", "problem.x=[a]", "problem.y=[c]"],
    ("problem", "big_table"): ["problem.path=t.parquet", "problem.x=[a]", "problem.y=[c]"],
    ("routine", "generate"): ["model=flow"],
    ("routine", "for_flow"): ["model=flow"],
    ("routine", "condition"): ["model=mixture"],
    ("routine", "for_mixture"): ["model=mixture"],
}
FLOW_PARTS = ("network", "path", "coupling", "time_sampling", "sampler")


@pytest.fixture(autouse=True)
def _own_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("a,c\n" + "\n".join(f"{i},{i * i}" for i in range(20)))
    rows = {"a": list(range(20)), "c": [i * i for i in range(20)]}
    parquet.write_table(pa.table(rows), "t.parquet")


def overrides(group: str, name: str) -> list[str]:
    extra = NEEDED.get((group, name), ["model=flow"] if group in FLOW_PARTS else [])
    return [f"{group}={name}", *extra]


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=lambda v: v)
def test_every_option_composes_and_its_target_takes_its_keys(group, name):
    config = compose_all(overrides(group, name))
    node = config.get(group)
    if node is None or "_target_" not in node:
        return
    target = get_object(node._target_)
    signature = inspect.signature(target)
    given = {str(k) for k in node if not str(k).startswith("_")}
    unknown = given - set(signature.parameters)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        unknown = set()
    assert not unknown, f"{group}/{name}.yaml names {unknown}, which {node._target_} does not take"


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "problem"])
def test_every_problem_is_built(name):
    if name == "botorch":
        pytest.importorskip(name)
    problem = make(compose(overrides("problem", name)).problem, "problem")
    table = problem.table(40) if problem.has_simulator else problem.table()
    assert len(table) > 10
    assert problem.name


@pytest.mark.parametrize("name", ["mixture", "multitask", "flow"])
def test_every_model_is_built_with_all_keys_of_its_schema(name):
    config = compose([f"model={name}", "problem=plug_flow"])
    problem = make(config.problem, "problem")
    partial = make(config.model, "model")
    model = partial(x_space=problem.x_space, y_space=problem.y_space, seed=3)
    assert model.x_space.names == problem.x_space.names


@pytest.mark.parametrize("name", [n for n, (group, _) in SCHEMAS.items() if group is not None])
def test_every_schema_has_the_fields_of_its_file(name):
    group, schema = SCHEMAS[name]
    files = {
        file: OmegaConf.load(file) or {} for file in sorted((CONF / str(group)).glob("*.yaml"))
    }
    # a list of defaults names the schema, or the schema below one key of the file
    named = {
        (file, str(entry).partition("@")[2])
        for file, node in files.items()
        for entry in node.get("defaults", [])
        if str(entry).partition("@")[0] == name
    }
    path, key = sorted(named)[0]
    # a file may build on another one of its group
    built_on = [path, *(path.with_name(f"{n}.yaml") for n in files[path].defaults)]
    nodes = [files[file][key] if key else files[file] for file in built_on if file in files]
    in_file = {str(k) for node in nodes for k in node}
    assert in_file - {"defaults"} == {f.name for f in fields(schema)}


def test_the_groups_are_those_that_are_documented():
    groups = {group for group, _ in OPTIONS}
    assert groups == {
        "callbacks", "coupling", "data", "encoder", "experiment", "heads", "hparams_search",
        "logger", "model", "network", "path", "paths", "problem", "routine",
        "sampler", "time_sampling", "trainer",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "experiment"])
def test_every_experiment_names_columns_of_its_problem(name):
    from genopt.app.setting import Setting

    setting = Setting.of(compose([f"experiment={name}", "data.rows=50"]))
    assert setting.goal.terms


def test_goals_on_the_command_line_replace_and_add():
    replaced = compose(["experiment=photostability", "goal={degradation_wf3: min}"])
    assert dict(replaced.goal) == {"degradation_wf3": "min"}
    added = compose(["experiment=photostability", "goal.mat_1=0.2"])
    assert set(added.goal) == {"degradation_pce10", "degradation_wf3", "mat_1"}


def test_parts_without_effect_are_dropped_and_refused():
    config = compose(["model=mixture", "problem=plug_flow"])
    assert "encoder" not in config
    assert "trainer" not in config
    for override in (
        "encoder=residual",
        "sampler=rk4",
        "trainer.devices=2",
        "model@judge=multitask",
        "judge.max_components=3",
    ):
        with pytest.raises(GenoptError, match="has no effect with the chosen model"):
            compose(["model=mixture", override])


def test_a_launcher_needs_no_heavy_import():
    import subprocess
    import sys

    code = (
        "import sys, genopt.app.main; genopt.app.main.prepare();"
        "print([m for m in ('torch', 'pytorch_lightning', 'pandas', 'wandb', 'matplotlib',"
        " 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert get_method("genopt.app.main.task")


def test_keys_of_an_engine_wait_for_it_in_a_sweep_over_engines():
    given = ["model=mixture,flow", "routine.samples=50", "model.seed=1,2", "seed=0"]
    assert swept_overrides(given) == [
        "model=mixture,flow",
        "routine.samples=choice(50)",
        "model.seed=1,2",
        "seed=0",
    ]
    alone = ["model=mixture", "routine.samples=50"]
    assert swept_overrides(alone) == alone
