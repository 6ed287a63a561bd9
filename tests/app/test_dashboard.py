"""The dashboard: folders to a table, a page and a server, looked at by a real browser."""

import base64
import html
import json
import math
import re
import shlex
import struct
import threading
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genopt.app.dashboard import watch as watching
from genopt.app.dashboard.curves import curves_of, thinned
from genopt.app.dashboard.details import command, last_lines, placed_figures
from genopt.app.dashboard.gather import Gatherer, Study, gather_studies, said_of
from genopt.app.dashboard.importance import importance
from genopt.app.dashboard.page import PAGE, TABLE, script_of, words_of, write_dashboard
from genopt.app.dashboard.page import html as page_html
from genopt.app.dashboard.payload import better, payload
from genopt.app.dashboard.table import to_frame, varied_keys
from genopt.app.folder import StudyFolder
from genopt.app.jobs import PlannedJob, record_jobs
from genopt.errors import GenoptError

CHROMIUM = Path("/usr/bin/chromium")
NASTY = "</script><img src=x onerror=alert(1)> & <!-- ' \" \u2028"
LOG = "[2026-01-01] INFO first\nTraceback (most recent call last):\nValueError: last words\n"


def png(width: int = 12, height: int = 8) -> bytes:
    """A white picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    rows = zlib.compress(b"".join(b"\0" + b"\xff" * width for _ in range(height)))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def study(
    folder: Path,
    *words: str,
    state: str = "finished",
    loss: float | None = None,
    config: dict | None = None,
    metrics: dict | None = None,
    curve: list[float] | None = None,
    error: str | None = None,
    started: str = "2026-01-01T10:00:00",
) -> Path:
    """A folder as a study leaves it."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))
    (folder / ".hydra" / "config.yaml").write_text("{}")
    said = said_of(words)
    model = said.get("model", "mixture")
    resolved = {
        "problem": {"_target_": "genopt.problems.plug_flow.PlugFlow", "case": "S1"},
        "goal": {},
        "data": {"rows": said.get("data.rows", 100)},
        "model": {"_target_": f"genopt.models.{model}.Model", "_partial_": True},
        "routine": {"_target_": "genopt.routines.sample.condition"},
        "paths": {"study": str(folder)},
        "threads": 1,
        "seed": said.get("seed", 0),
    }
    if model == "mixture":
        resolved["model"]["max_components"] = said.get("model.max_components", 20)
    else:
        resolved["model"]["epochs"] = said.get("model.epochs", 10)
    resolved |= config or {}
    status = {"state": state, "started": started, "problem": "plug_flow"}
    if error is not None:
        status["error"] = error
        (folder / "study.log").write_text(LOG)
    if state == "finished":
        numbers = {"verified/best_loss": loss, "fit_seconds": 2.0, "held_out/r2/a": 0.9}
        (folder / "metrics.json").write_text(json.dumps(numbers | (metrics or {})))
        status |= {"finished": "2026-01-01T10:00:30", "verdict": f"found {NASTY}"}
        (folder / "top.csv").write_text("goal,a,kind\n0,1.23456789,P1-L3\n0,2.5,P2\n")
        (folder / "figures").mkdir()
        (folder / "figures" / "parity & more.png").write_bytes(png())
        finding = {"fault": "slow training", "what": "it waited", "advice": "run fewer at once"}
        (folder / "diagnosis.json").write_text(json.dumps([finding]))
    if curve is not None:
        epochs = [{"epoch": float(i), "validation/loss": v} for i, v in enumerate(curve)]
        (folder / "history.json").write_text(json.dumps(epochs))
    (folder / "config.yaml").write_text(yaml.safe_dump(resolved))
    (folder / "status.json").write_text(json.dumps(status))
    return folder


# -- folders ---------------------------------------------------------------------------------------
def test_states_of_a_sweep_that_was_cut_short(tmp_path):
    study(tmp_path / "a", "seed=0", loss=1.0)
    study(tmp_path / "b", "seed=1", state="failed", error="no such column")
    study(tmp_path / "c", "seed=2", state="running")
    study(tmp_path / "d", "seed=3", state="running")
    old = study(tmp_path / "a" / "previous" / "2026", "seed=9", loss=5.0)
    jobs = [PlannedJob(i, name, (f"seed={i}", "model=flow")) for i, name in enumerate("abcde")]
    record_jobs(tmp_path, jobs, command=["genopt"])
    with StudyFolder(tmp_path / "c").claimed():
        found = gather_studies([tmp_path])
    assert {s.name: s.state for s in found} == {
        "a": "finished",
        "b": "failed",
        "c": "running",
        "d": "interrupted",
        "e": "missing",
    }
    by_name = {s.name: s for s in found}
    assert old.exists()
    assert [by_name[n].seed for n in "abcde"] == [0, 1, 2, 3, 4]
    assert by_name["b"].error == "no such column"
    assert by_name["e"].model == "flow"
    assert by_name["a"].seconds == 30.0
    assert by_name["d"].seconds is None


def test_several_folders_keep_their_names_apart(tmp_path):
    study(tmp_path / "one" / "x", loss=1.0)
    study(tmp_path / "two" / "x", loss=2.0)
    found = gather_studies([tmp_path / "one", tmp_path / "two"])
    assert sorted(s.name for s in found) == ["one/x", "two/x"]
    # a folder that is given twice, or lies in another, counts once
    assert len(gather_studies([tmp_path, tmp_path / "one"])) == 2
    (single,) = gather_studies([tmp_path / "one" / "x"])
    assert single.name == "x"


def test_a_gatherer_sees_what_has_changed(tmp_path):
    folder = study(tmp_path / "a", state="failed", error="first")
    gatherer = Gatherer()
    assert gatherer.studies([tmp_path])[0].error == "first"
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "error": "then another"}))
    assert gatherer.studies([tmp_path])[0].error == "then another"
    with pytest.raises(GenoptError, match="is no folder"):
        gatherer.studies([tmp_path / "nowhere"])


def test_files_that_a_kill_cut_short_stop_nothing(tmp_path):
    folder = study(tmp_path / "a", "seed=4", loss=1.0)
    for name in ("metrics.json", "config.yaml", "history.json", "diagnosis.json", "top.csv"):
        (folder / name).write_text('{"a": [1,')
    (found,) = gather_studies([tmp_path])
    assert (found.state, found.metrics, found.seed) == ("finished", {}, 4)
    assert write_dashboard([found], [tmp_path], tmp_path).exists()


# -- the table -------------------------------------------------------------------------------------
def test_varied_keys_are_those_that_somebody_said(tmp_path):
    study(tmp_path / "a", "model=mixture", "data.rows=50", "seed=0", loss=1.0)
    study(tmp_path / "b", "model=mixture", "model.max_components=4", "seed=1", loss=2.0)
    study(tmp_path / "c", "model=flow", "data.rows=50", loss=3.0)
    study(tmp_path / "d", "model=flow", "data.rows=50", "goal.a=1", "+goal.b=2", loss=3.0)
    goal = json.dumps({"a": 1, "b": 2})
    config = yaml.safe_load((tmp_path / "d" / "config.yaml").read_text())
    (tmp_path / "d" / "config.yaml").write_text(
        yaml.safe_dump({**config, "goal": json.loads(goal)})
    )
    studies = gather_studies([tmp_path])
    keys = {key.name: key for key in varied_keys(studies)}
    # what nobody said is the default, as the study was composed
    assert keys["data.rows"].values == (50, 100, 50, 50)
    assert keys["model.max_components"].values == (20, 4, None, None)
    assert keys["goal"].values == ("{}", "{}", "{}", '{"a": 1, "b": 2}')
    assert {name for name, key in keys.items() if key.said} == {
        "data.rows",
        "model.max_components",
        "goal",
    }
    assert not keys["model.epochs"].said
    assert not {"threads", "paths.study", "seed", "model"} & set(keys)
    frame = to_frame(studies, list(keys.values()))
    assert frame["key:data.rows"].tolist() == [50, 100, 50, 50]
    assert frame["key:model.max_components"].dropna().tolist() == [20, 4]
    assert frame["verified/best_loss"].tolist() == [1.0, 2.0, 3.0, 3.0]
    assert frame["seed"].tolist() == [0, 1, 0, 0]


def test_a_choice_that_only_one_command_line_made(tmp_path):
    study(tmp_path / "a", "encoder=residual", loss=1.0, config={"encoder": {"depth": 2}})
    folder = study(tmp_path / "b", "seed=1", loss=1.0, config={"encoder": {"depth": 3}})
    choices = {"hydra": {"runtime": {"choices": {"encoder": "mlp"}}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(choices))
    keys = {key.name: key for key in varied_keys(gather_studies([tmp_path]))}
    assert keys["encoder"].values == ("residual", "mlp")
    assert keys["encoder.depth"].values == (2, 3)
    assert keys["encoder"].said
    assert not keys["encoder.depth"].said


def test_studies_from_python_have_no_command_line(tmp_path):
    for i in range(4):
        model = {"_target_": "genopt.models.mixture.Mixture", "members": i % 2, "twin": i % 2}
        folder = study(tmp_path / f"{i}", loss=1.0, config={"model": model, "seed": i // 2})
        (folder / ".hydra" / "overrides.yaml").unlink()
    studies = gather_studies([tmp_path])
    keys = {key.name: key for key in varied_keys(studies)}
    assert keys["model.twin"].said != keys["model.members"].said
    assert command(studies[0]) == ""


def test_the_parquet_file_has_a_row_for_each_study(tmp_path):
    study(tmp_path / "a", "seed=0", "data.rows=50", loss=0.25, metrics={"odd": math.nan})
    study(tmp_path / "b", "seed=1", state="failed", error="why")
    study(tmp_path / "c", "seed=1", "data.rows=full", state="failed", error="why")
    write_dashboard(gather_studies([tmp_path]), [tmp_path], tmp_path)
    frame = pd.read_parquet(tmp_path / TABLE).set_index("folder")
    assert frame["state"].to_dict() == {"a": "finished", "b": "failed", "c": "failed"}
    assert frame.loc["a", "verified/best_loss"] == 0.25
    assert frame["verified/best_loss"].isna().tolist() == [False, True, True]
    assert frame["key:data.rows"].tolist() == ["50", "100", "full"]
    assert frame.loc["b", "error"] == "why"
    assert frame["started"].dt.year.tolist() == [2026] * 3


# -- parts -----------------------------------------------------------------------------------------
def test_importance_finds_the_key_that_decides():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 60), rng.choice(["x", "y"], 60)
    c = [int(v) if name == "x" else None for v, name in zip(rng.integers(0, 9, 60), b, strict=True)]
    values = 10.0 ** (2 * a) * rng.uniform(0.9, 1.1, 60)
    found = importance({"b": list(b), "a": a.tolist(), "c": c, "same": [1] * 60}, values.tolist())
    assert found["keys"][0] == "a"
    assert set(found["keys"]) == {"a", "b", "c"}
    assert found["log"]
    assert found["explained"] > 0.95
    # shuffling the only key that matters loses about twice the variance
    assert 1.0 < found["mean"][0] < 3.0
    assert max(map(abs, found["mean"][1:])) < 0.05


def test_importance_says_when_it_cannot_tell():
    rng = np.random.default_rng(1)
    noise = importance({"a": rng.integers(0, 3, 60).tolist()}, rng.normal(size=60).tolist())
    assert noise["explained"] < 0.1
    assert "at least" in importance({"a": [1, 2]}, [1.0, 2.0])["why"]
    assert "same value" in importance({"a": list(range(12))}, [1.0] * 12)["why"]
    # a key that only one engine has says nothing beyond the engine
    assert "no key" in importance({"a": [5] * 6 + [None] * 6}, list(range(12)))["why"]


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=300),
    st.integers(3, 50),
)
def test_a_thinned_curve_keeps_its_ends_and_its_best(values, most):
    epochs = [{"epoch": i, "loss": v} for i, v in enumerate(values)]
    x, y = thinned(epochs, most)["loss"]
    assert len(x) <= most + 1
    assert (x[0], x[-1]) == (0, len(values) - 1)
    assert y == [values[int(i)] for i in x]
    assert min(y) == min(values)
    assert x == sorted(set(x))
    if len(values) <= most:
        assert y == values


def test_the_curve_of_a_study_that_runs(tmp_path):
    folder = study(tmp_path / "a", "model=flow", state="running")
    (folder / "csv" / "version_0").mkdir(parents=True)
    lines = [
        "epoch,step,train/loss,validation/loss",
        "0,9,,1.5",
        "0,9,2.5,",
        "1,19,1.25,",
        "1,19,,0.5",
    ]
    (folder / "csv" / "version_0" / "metrics.csv").write_text("\n".join(lines) + "\n")
    studies = gather_studies([tmp_path])
    key = studies[0].id
    assert curves_of(studies) == {
        "validation/loss": {key: [[0, 1], [1.5, 0.5]]},
        "train/loss": {key: [[0, 1], [2.5, 1.25]]},
    }


def test_a_command_line_comes_back_as_it_was_typed():
    words = ("~goal", "+goal={a: 1}", "++goal.b=2", "model=flow", "++routine.samples=3", "x='a b'")
    line = command(Study(Path("x"), "x", "finished", overrides=words))
    wanted = ["goal={a: 1}", "goal.b=2", "model=flow", "++routine.samples=3", "x='a b'"]
    assert shlex.split(line) == ["genopt", *wanted]


def test_last_lines_of_a_long_log(tmp_path):
    (tmp_path / "study.log").write_text("\n".join(f"line {i}" for i in range(100_000)))
    lines = last_lines(tmp_path / "study.log")
    assert lines[-1] == "line 99999"
    assert len(lines) == 40
    assert last_lines(tmp_path / "none.log") == []


def test_figures_are_inlined_as_long_as_the_budget_lasts(tmp_path):
    one = study(tmp_path / "one", loss=1.0)
    two = study(tmp_path / "two #2", loss=2.0)
    studies = gather_studies([tmp_path])
    body = (one / "figures" / "parity & more.png").read_bytes()
    size = math.ceil(len(body) / 3) * 4
    by_name = {s.name: s for s in studies}
    ordered = [by_name["one"], by_name["two #2"]]
    placed = placed_figures(ordered, tmp_path, budget=size)
    (first,), (second,) = placed[ordered[0].id], placed[ordered[1].id]
    assert base64.b64decode(first["src"].partition("base64,")[2]) == body
    assert (first["width"], first["height"]) == (12, 8)
    assert second["src"] == "two%20%232/figures/parity%20%26%20more.png"
    assert (tmp_path / urllib.request.url2pathname(second["src"])).samefile(
        two / "figures" / "parity & more.png"
    )


def test_no_text_of_a_study_leaves_its_element():
    data = {"text": NASTY, "number": 1.5}
    element = script_of("x", data)
    inside = re.fullmatch(r'<script type="application/json" id="x">(.*)</script>', element).group(1)
    assert "<" not in inside
    assert json.loads(inside) == data


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("verified/best_loss", "low"),
        ("held_out/r2/F_A", "high"),
        ("claimed/satisfied", "high"),
        ("mode_recall", "high"),
        ("fit_seconds", "low"),
        ("residual/r2d2", "low"),
        ("mine", "high"),
    ],
)
def test_which_way_a_number_is_better(name, way):
    assert better(name, {"mine": "maximize"}) == way


def test_a_search_says_what_is_looked_at_first(tmp_path):
    study(tmp_path / "a", "seed=0", loss=1.0, metrics={"mine": 1.0})
    study(tmp_path / "b", "seed=1", state="pruned")
    found = {"objectives": ["mine"], "directions": ["maximize"], "importances": {"mine": {"k": 1}}}
    (tmp_path / "search.json").write_text(json.dumps(found))
    studies = gather_studies([tmp_path])
    write_dashboard(studies, [tmp_path], tmp_path)
    data = json.loads(
        re.search(r'id="data">(.*?)</script>', (tmp_path / PAGE).read_text()).group(1)
    )
    first = next(c for c in data["columns"] if c["group"] == "metric")
    assert (first["name"], first["better"]) == ("mine", "high")
    assert data["searches"] == [{"mine": {"k": 1}}]


def test_the_page_says_what_began_the_sweep_and_what_repeats_its_failures(tmp_path):
    root = tmp_path / "a sweep"
    words = ["main.py", "-m", "goal={a: 1}", "seed=0,1", "hydra.sweep.dir=x"]
    record_jobs(root, [PlannedJob(0, "x", ("seed=0",))], command=words)
    said = words_of([root])
    assert shlex.split(said["command"]) == ["genopt", "-m", "goal={a: 1}", "seed=0,1"]
    assert shlex.split(said["again"]) == ["genopt-report", str(root), "--failed"]
    assert words_of([root, tmp_path])["command"] == ""
    assert words_of([tmp_path])["command"] == ""


def test_a_page_without_plotly_says_what_to_install(tmp_path, monkeypatch):
    study(tmp_path / "a", loss=1.0)
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(GenoptError, match="pip install plotly"):
        write_dashboard(gather_studies([tmp_path]), [tmp_path], tmp_path)
    assert (tmp_path / TABLE).exists()


# -- a real browser --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with api.sync_playwright() as playwright:
        # drawn by the processor where there is no graphics card
        flags = ["--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """130 studies: two engines, keys, seeds; some failed, one never began."""
    root = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    jobs = []
    for number in range(130):
        model = "mixture" if number % 2 else "flow"
        rows, seed = (50, 100, 200)[number // 2 % 3], number // 6
        words = [f"model={model}", f"data.rows={rows}", f"seed={seed}"]
        loss = float(rng.uniform(1, 3) * (1e-6 if model == "flow" else 1e-4) * 100 / rows)
        failed = number in (7, 8, 99)
        study(
            root / f"{model}-{number:03d}",
            *words,
            state="failed" if failed else "finished",
            loss=loss,
            metrics={"fit_seconds": float(rng.uniform(1, 9))},
            curve=list(np.exp(-np.arange(30) / 9)) if model == "flow" else None,
            error=NASTY if failed else None,
            started=f"2026-01-01T10:{number // 60:02d}:{number % 60:02d}",
        )
        jobs.append(PlannedJob(number, f"{model}-{number:03d}", tuple(words)))
    jobs.append(PlannedJob(130, "flow-130", ("model=flow", "data.rows=50", "seed=99")))
    record_jobs(root, jobs, command=["genopt", "-m"])
    studies = gather_studies([root])
    page = write_dashboard(studies, [root], root, budget=5_000)
    return page, pd.read_parquet(root / TABLE)


@pytest.fixture
def opened(chromium, sweep):
    """The page, from its file, without a network; what the browser complained of fails the test."""
    context = chromium.new_context(offline=True, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    complaints, asked = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(sweep[0].as_uri())
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert not complaints
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def tab(page, name):
    page.click(f"[role=tab][data-tab={name}]")


def texts(page, column):
    """The cells of a column of the table of studies."""
    names = page.eval_on_selector_all("[data-sort]", "all => all.map(e => e.dataset.sort)")
    return page.eval_on_selector_all(
        "tbody tr[data-id]",
        f"rows => rows.map(r => r.cells[{names.index(column)}].textContent)",
    )


def ids(page):
    return page.eval_on_selector_all("tbody tr[data-id]", "rows => rows.map(r => r.dataset.id)")


def test_the_table_sorts(opened, sweep):
    frame = sweep[1]
    tab(opened, "studies")
    assert len(ids(opened)) == 100
    opened.click('[data-sort="verified/best_loss"]')
    wanted = frame.sort_values("verified/best_loss")["folder"].tolist()[:100]
    assert texts(opened, "study") == wanted
    opened.click('[data-sort="verified/best_loss"]')
    done = frame[frame["state"] == "finished"]
    wanted = done.sort_values("verified/best_loss", ascending=False)["folder"].tolist()
    assert texts(opened, "study") == wanted[:100]
    # what has no number comes last, whichever way
    opened.click(".pages button >> nth=1")
    assert set(texts(opened, "study")[-4:]) == set(frame[frame["state"] != "finished"]["folder"])


def test_the_table_filters(opened, sweep):
    frame = sweep[1]
    tab(opened, "studies")
    field = '[data-filter="{}"]'
    opened.fill(field.format("model"), "flow")
    opened.fill(field.format("data.rows"), ">=100")
    opened.fill(field.format("seed"), "3..9 !=5")
    wanted = frame.query("model == 'flow' and `key:data.rows` >= 100 and 3 <= seed <= 9")
    wanted = wanted[wanted["seed"] != 5]
    assert sorted(texts(opened, "study")) == sorted(wanted["folder"])
    assert opened.inner_text("#count") == f"{len(wanted)} of 131 studies"
    # half a condition filters nothing so far
    opened.fill(field.format("seed"), ">")
    assert len(ids(opened)) == len(frame.query("model == 'flow' and `key:data.rows` >= 100"))
    opened.click("#clear")
    opened.click("[data-state=failed]")
    assert sorted(texts(opened, "study")) == ["flow-008", "mixture-007", "mixture-099"]
    opened.click("[data-state=missing]")
    assert len(ids(opened)) == 4
    opened.fill(field.format("study"), "!mixture")
    assert sorted(texts(opened, "study")) == ["flow-008", "flow-130"]


def test_a_click_shows_the_study(opened, sweep):
    tab(opened, "studies")
    opened.click('[data-sort="verified/best_loss"]')
    opened.click("tbody tr[data-id] >> nth=0")
    drawer = opened.locator("#study")
    best = sweep[1].sort_values("verified/best_loss").iloc[0]
    assert best["folder"] in drawer.inner_text()
    for part in (NASTY.split("\u2028")[0], "slow training", "run fewer at once", "P1-L3", "1.235"):
        assert part in drawer.inner_text()
    line = f"genopt model={best['model']} data.rows={best['key:data.rows']} seed={best['seed']}"
    assert line in drawer.inner_text()
    image = drawer.locator("img")
    assert image.get_attribute("src").startswith("data:image/png")
    opened.wait_for_function("document.querySelector('#study img').naturalWidth === 12")
    image.click()
    assert opened.evaluate("document.querySelector('#zoom').open")
    opened.keyboard.press("Escape")
    opened.keyboard.press("Escape")
    assert drawer.is_hidden()
    # figures beyond the budget lie beside the page
    opened.click("tbody tr[data-id] >> nth=99")
    assert "lie beside the page" in drawer.inner_text()
    opened.wait_for_function("document.querySelector('#study img').naturalWidth === 12")


def test_the_keyboard_is_enough(opened):
    tab(opened, "studies")
    first, second = ids(opened)[:2]
    opened.focus("tbody tr[data-id] >> nth=0")
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("Enter")
    assert opened.get_attribute("#study", "data-study") == second
    opened.keyboard.press("Escape")
    # the place from which it was opened has the focus again
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("Enter")
    opened.wait_for_selector(f'#study[data-study="{first}"]')
    opened.keyboard.press("Escape")
    opened.focus("[role=tab][aria-selected=true]")
    opened.keyboard.press("ArrowRight")
    assert opened.get_attribute("[role=tab][aria-selected=true]", "data-tab") == "keys"


def test_the_best_setting_is_the_best_median(opened, sweep):
    done = sweep[1][sweep[1]["state"] == "finished"]
    groups = done.groupby(["model", "key:data.rows"])["verified/best_loss"]
    medians = groups.median().sort_values()
    rows = opened.eval_on_selector_all(
        ".settings tbody tr", "all => all.map(r => [...r.cells].map(c => c.textContent))"
    )
    assert [(row[1], int(row[2])) for row in rows] == list(medians.index)
    assert [float(row[3]) for row in rows] == pytest.approx(medians.tolist(), rel=6e-3)
    assert [int(row[6]) for row in rows] == [groups.count()[place] for place in medians.index]
    first, second = (done.set_index(["model", "key:data.rows"]).loc[i] for i in medians.index[:2])
    pairs = (
        first["verified/best_loss"].to_numpy()[:, None] < second["verified/best_loss"].to_numpy()
    )
    said = opened.inner_text("#answer")
    assert f"in {pairs.sum()} of {pairs.size} pairs" in said
    # the other way round the worst is the best
    opened.click("#direction")
    assert "model=mixture" in opened.inner_text("#answer")


@pytest.mark.parametrize("name", ["keys", "parallel", "curves", "tradeoff", "importance"])
def test_a_view_is_drawn(opened, name):
    tab(opened, name)
    opened.wait_for_selector(".plot[data-drawn]", timeout=20_000)
    assert int(opened.get_attribute(".plot", "data-drawn")) > 0
    opened.wait_for_selector(".plot .main-svg")
    # filters decide what is drawn
    tab(opened, "studies")
    opened.fill('[data-filter="study"]', "no such study")
    tab(opened, name)
    wanted = "empty" if name != "importance" else "1"
    opened.wait_for_selector(f'.plot[data-drawn="{wanted}"]')


def test_error_bars_and_the_front_are_right(opened, sweep):
    done = sweep[1][sweep[1]["state"] == "finished"]
    tab(opened, "keys")
    opened.wait_for_selector(".plot[data-drawn]")
    read = "document.querySelector('.plot').data.map(t => [t.name, t.x, t.y, t.error_y])"
    for name, x, y, bars in opened.evaluate(read):
        for at, middle, above, below in zip(x, y, bars["array"], bars["arrayminus"], strict=True):
            model = name.removeprefix("model = ")
            own = done[(done["model"] == model) & (done["key:data.rows"] == at)]
            found = [middle, middle + above, middle - below]
            losses = own["verified/best_loss"]
            wanted = [losses.median(), losses.max(), losses.min()]
            assert found == pytest.approx(wanted, rel=1e-4)
    tab(opened, "tradeoff")
    opened.wait_for_selector(".plot[data-drawn]")
    opened.select_option('[data-plot="across"]', "fit_seconds")
    opened.wait_for_function(
        "document.querySelector('.plot').layout?.xaxis?.title?.text === 'fit_seconds'"
    )
    front = opened.evaluate("document.querySelector('.plot').data.at(-1)")
    values = done[["fit_seconds", "verified/best_loss"]].to_numpy()
    beaten = (values[None] <= values[:, None]).all(2) & (values[None] < values[:, None]).any(2)
    wanted = values[~beaten.any(1)]
    wanted = wanted[wanted[:, 0].argsort()]
    assert np.allclose(np.array([front["x"], front["y"]]).T, wanted, rtol=1e-5)


def test_failures_say_why_and_how_to_go_on(opened):
    tab(opened, "failures")
    opened.wait_for_selector(".failure")
    said = opened.inner_text("#view")
    for part in ("onerror=alert(1)", "3 studies", "last words", "never began", "--failed"):
        assert part in said
    assert "(4)" in opened.inner_text("[role=tab][data-tab=failures]")
    opened.click("text=flow-130")
    assert "flow-130" in opened.inner_text("#study")


def test_a_narrow_page_does_not_scroll_sideways(opened):
    opened.set_viewport_size({"width": 420, "height": 800})
    for name in ("settings", "studies", "failures"):
        tab(opened, name)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 420


def test_nothing_finished_is_a_page_too(chromium, tmp_path):
    study(tmp_path / "a", "seed=0", state="failed", error="no such column")
    study(tmp_path / "b", "seed=1", state="running")
    page = write_dashboard(gather_studies([tmp_path]), [tmp_path], tmp_path)
    view = chromium.new_page()
    complaints = []
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.goto(page.as_uri())
    view.wait_for_selector("html[data-ready]")
    assert "No study has finished" in view.inner_text("#answer")
    assert len(ids(view)) == 2
    for name in ("settings", "keys", "parallel", "curves", "tradeoff", "importance", "failures"):
        tab(view, name)
        if name not in ("settings", "failures"):
            view.wait_for_selector('.plot[data-drawn="empty"]')
    view.close()
    assert not complaints


# -- live ------------------------------------------------------------------------------------------
@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_FRESH", 0.0)
    study(tmp_path / "a", "seed=0", loss=1.0, curve=[1.0, 0.5])
    server = watching.serve([tmp_path], 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read()


def test_the_server_answers_for_its_studies_alone(served):
    root, url = served
    data = json.loads(get(f"{url}/data.json"))
    assert json.loads(get(f"{url}/data.json?since={data['version']}")) == {
        "version": data["version"]
    }
    said = json.loads(get(f"{url}/study/{data['ids'][0]}.json"))
    assert said["command"] == "genopt seed=0"
    assert get(f"{url}/{said['figures'][0]['src']}") == png()
    assert data["curves"]["validation/loss"][data["ids"][0]] == [[0, 1], [1, 0.5]]
    study(root / "b", "seed=1", loss=2.0)
    fresh = json.loads(get(f"{url}/data.json?since={data['version']}"))
    assert len(fresh["ids"]) == 2
    key = data["ids"][0]
    for path in ("/etc/passwd", f"/figure/{key}/..%2Fstatus.json", "/study/none.json", "/x"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url + path)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(f"{url}/data.json", Host="elsewhere.example:80")


def test_the_live_page_follows_the_sweep(served, chromium):
    root, url = served
    view = chromium.new_page()
    view.goto(f"{url}/#tab=studies")
    view.wait_for_selector("html[data-ready]")
    view.fill('[data-filter="study"]', "!nothing")
    assert len(ids(view)) == 1
    study(root / "b", "seed=1", loss=2.0)
    view.wait_for_function("document.querySelectorAll('tbody tr[data-id]').length === 2")
    assert view.input_value('[data-filter="study"]') == "!nothing"
    # whoever types goes on typing
    view.keyboard.type("x")
    assert view.input_value('[data-filter="study"]') == "!nothingx"
    view.click("tbody tr[data-id] >> nth=1")
    view.wait_for_function("document.querySelector('#study img')?.naturalWidth === 12")
    tab(view, "curves")
    view.wait_for_selector('.plot[data-drawn="1"]', timeout=20_000)
    view.close()


def test_a_port_in_use_is_left_to_its_owner(tmp_path):
    study(tmp_path / "a", loss=1.0)
    first = watching.serve([tmp_path], 0)
    taken = first.server_address[1]
    second = watching.serve([tmp_path], taken)
    assert second.server_address[1] > taken
    first.server_close()
    second.server_close()


def test_a_page_holds_its_data_as_they_are():
    data = payload([Study(Path("x"), "a/b", "missing", overrides=("seed=3",))], NASTY)
    text = page_html(data)
    found = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    assert found["title"] == NASTY
    assert html.escape(NASTY) not in text


def test_problems_are_ranked_one_at_a_time(chromium, tmp_path):
    other = {"problem": {"_target_": "genopt.problems.branin.Branin"}}
    for seed in range(3):
        study(tmp_path / f"a{seed}", "data.rows=50", f"seed={seed}", loss=5.0 + seed)
        study(tmp_path / f"b{seed}", "data.rows=60", f"seed={seed}", loss=7.0 + seed)
        folder = study(tmp_path / f"c{seed}", f"seed={seed}", loss=1.0, config=other)
        status = json.loads((folder / "status.json").read_text()) | {"problem": "branin"}
        (folder / "status.json").write_text(json.dumps(status))
    # it belongs to the only problem of its name
    study(tmp_path / "d", "problem=branin", state="failed", error="why")
    (tmp_path / "d" / "config.yaml").unlink()
    status = json.loads((tmp_path / "d" / "status.json").read_text()) | {"problem": "branin"}
    (tmp_path / "d" / "status.json").write_text(json.dumps(status))
    page = write_dashboard(gather_studies([tmp_path]), [tmp_path], tmp_path)
    view = chromium.new_page()
    view.goto(page.as_uri())
    view.wait_for_selector("html[data-ready]")
    # the problem with most studies comes first
    assert view.inner_text("#count") == "6 studies"
    assert "data.rows=50" in view.inner_text("#answer")
    # 5, 6, 7 against 7, 8, 9: a tie counts half
    assert "in 8.5 of 9 pairs" in view.inner_text("#answer")
    view.select_option("#question", label="branin")
    assert view.inner_text("#count") == "4 studies"
    assert "(1)" in view.inner_text("[role=tab][data-tab=failures]")
    view.select_option("#question", label="all problems")
    assert "choose a problem" in view.inner_text("#answer")
    view.close()
