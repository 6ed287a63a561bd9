"""The commands and the code of the README and of two guides run as written there."""

import functools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import genopt
from genopt.app.compose import compose, full_words
from genopt.app.parts import make
from genopt.app.setting import Setting

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = README + "".join((ROOT / "docs" / f"{n}.md").read_text() for n in ("routines", "sweeps"))
COMMANDS = [
    shlex.split(line.split("  #")[0])[1:]
    for block in re.findall(r"```bash\n(.*?)```", PAGES, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("genopt ")
]
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_asks_for_something_possible(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "\n".join(
        f"{i},{i % 7},{i % 3},{300 + i},{'red' if i % 2 else 'blue'}" for i in range(99)
    )
    Path("films.csv").write_text("a,b,c,strength,colour\n" + rows)
    if "--help" in arguments or arguments[0] == "diagnose":
        return
    # of a sweep, the first choice of each key
    words = [a for a in full_words(arguments) if not a.startswith("-")]
    words = [re.sub(r"^([\w.]+)=range\((\d+),.*", r"\1=\2", a) for a in words]
    first = [re.sub(r"^([\w.]+=[^,{\[]+),.*", r"\1", a) for a in words]
    config = compose(first)
    setting = Setting.of(config)
    model = make(config.model, "model")(
        x_space=setting.problem.x_space, y_space=setting.problem.y_space
    )
    from genopt.routines.checks import check_routine

    check_routine(make(config.routine, "routine"), model, setting.goal, problem=setting.problem)


def test_make_study_runs_the_command_of_the_readme():
    assert "genopt -m experiment=photostability model=mixture,multitask,flow" in README
    makefile = (ROOT / "Makefile").read_text()
    assert "genopt -m experiment=photostability model=mixture,multitask,flow" in makefile
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_five_lines_draw_rings(monkeypatch):
    quick = functools.partialmethod(genopt.ConditionalFlowMatching.fit, epochs=2)
    monkeypatch.setattr(genopt.ConditionalFlowMatching, "fit", quick)
    names: dict[str, object] = {}
    exec(BLOCKS[0].replace("n_samples=4000", "n_samples=300"), names)
    rings = np.asarray(names["rings"])
    assert rings.shape == (3, 1000, 2)
    assert np.abs(rings).max() <= 1


def test_the_calls_from_python(monkeypatch):
    quick = functools.partialmethod(genopt.FlexibleMultiTaskModel.fit, epochs=2)
    monkeypatch.setattr(genopt.FlexibleMultiTaskModel, "fit", quick)
    rng = np.random.default_rng(0)
    designs = rng.normal(size=(200, 6))
    names: dict[str, object] = {
        "data": rng.normal(size=(200, 2)),
        "density": designs[:, 0],
        "phase": (designs[:, 1] > 0).astype(float) + (designs[:, 1] > 1),
        "designs": designs[:, :1],
        "mixture": genopt.Mixture(
            genopt.Space.of(a=(-6.0, 6.0), b=(-6.0, 6.0)),
            genopt.Space.of(density=(-12.0, 12.0), cost=(-6.0, 6.0)),
            max_components=1,
        ).fit(designs[:, :2], designs[:, 2:4]),
    }
    code = BLOCKS[1].replace("model.fit(x,", "x = all_designs\nmodel.fit(x,")
    exec(code, names | {"all_designs": designs})
