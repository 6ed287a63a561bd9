"""The house as `docs/architecture.md` shows it: who imports whom, how heavy an import is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import genopt

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "genopt"
FILES = sorted(SOURCE.rglob("*.py"))
MOST_LINES = 400

# an import points to a lower number or stays in its own room
RANKS = {
    "nouns": 0, "nn": 1, "data": 1, "problems": 2, "models": 2, "routines": 3, "analysis": 4,
    "app": 5,
}  # fmt: skip
NOUNS = {
    "errors", "simplex", "variable", "space", "terms", "goal", "modes", "candidates", "protocols",
    "build", "constraint", "expression", "files",
}  # fmt: skip
# (file, module): a method for convenience, imported inside the function that needs it
UPWARD = {("models/multitask/model.py", "genopt.routines.optimize_latent")}
HEAVY = {"pandas", "sklearn", "matplotlib", "wandb", "scipy", "gmr", "pytorch_lightning", "torch"}
ONLY_INSIDE_FUNCTIONS = {"pandas", "sklearn", "matplotlib", "wandb", "rich", "torchdiffeq"}


@dataclass(frozen=True)
class Import:
    """One import statement of our own or a foreign module."""

    file: str
    line: int
    module: str
    names: tuple[str, ...]
    when: str  # import, call, typing

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module} ({self.when})"


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file; relative imports would be an error of their own."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    in_function = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    name = path.relative_to(SOURCE).as_posix()
    for node in ast.walk(tree):
        when = (
            "typing" if id(node) in typing_only else "call" if id(node) in in_function else "import"
        )
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name, (), when)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: write the whole path"
            names = tuple(alias.name for alias in node.names)
            yield Import(name, node.lineno, str(node.module), names, when)


IMPORTS = [found for path in FILES for found in imports_of(path)]
OURS = [i for i in IMPORTS if i.module.split(".")[0] == "genopt"]


def room(parts: tuple[str, ...]) -> str:
    """The room of a path below the package, given in parts."""
    if len(parts) == 0 or parts[0] == "__init__":
        return "package"
    return "nouns" if parts[0] in NOUNS else parts[0]


def home(found: Import) -> str:
    return room(Path(found.file).with_suffix("").parts)


def goal(found: Import) -> str:
    return room(tuple(found.module.split(".")[1:]))


def test_every_file_is_in_a_known_room():
    rooms = {room(path.relative_to(SOURCE).with_suffix("").parts) for path in FILES}
    assert rooms == {*RANKS, "package"}


def test_imports_only_point_downwards():
    upwards = [
        str(found)
        for found in OURS
        # the package itself is only a name and a version
        if goal(found) != "package"
        and home(found) != goal(found)
        and RANKS[goal(found)] >= RANKS[home(found)]
        and not (found.when == "call" and (found.file, found.module) in UPWARD)
    ]
    assert not upwards
    # an exception that is no longer needed is no exception
    assert {(found.file, found.module) for found in OURS} >= UPWARD


def test_the_package_itself_is_imported_by_the_app_alone():
    assert {home(found) for found in OURS if goal(found) == "package"} <= {"app", "package"}


def test_engines_do_not_know_one_another():
    engines = {"multitask", "flow", "mixture"}
    for found in OURS:
        own, other = Path(found.file).parts, found.module.split(".")[1:]
        if own[0] == "models" and own[1] in engines and other[:1] == ["models"]:
            assert other[1] == own[1] or other[1] not in engines, str(found)


def test_there_is_no_circle_of_imports():
    modules = {
        "genopt." + path.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")
        for path in FILES
    }
    graph: dict[str, set[str]] = {}
    for found in OURS:
        if found.when != "import":
            continue
        origin = "genopt." + found.file.removesuffix(".py").replace("/", ".")
        for target in (found.module, *(f"{found.module}.{name}" for name in found.names)):
            for known in (target, f"{target}.__init__"):
                if known in modules and known != origin:
                    graph.setdefault(origin, set()).add(known)
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module in done:
            return
        way.append(module)
        for target in sorted(graph.get(module, ())):
            visit(target)
        done.add(way.pop())

    for module in sorted(graph):
        visit(module)
    assert len(done) > 50


def test_nothing_private_crosses_a_file():
    private = [
        f"{found} {name}"
        for found in OURS
        for name in found.names
        if name.startswith("_") and not name.startswith("__")
    ]
    assert not private


def test_nn_is_plain_torch():
    foreign = {i.module.split(".")[0] for i in IMPORTS if home(i) == "nn"} - {"genopt", "torch"}
    assert foreign <= set(sys.stdlib_module_names)


def test_only_the_app_knows_hydra():
    knows = {
        home(found)
        for found in IMPORTS
        if found.module.split(".")[0] in ("hydra", "omegaconf", "wandb")
    }
    assert knows == {"app"}


def test_heavy_packages_are_imported_where_they_are_used():
    early = [
        str(found)
        for found in IMPORTS
        if found.when == "import" and found.module.split(".")[0] in ONLY_INSIDE_FUNCTIONS
    ]
    assert not early


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("genopt", HEAVY | {"numpy", "hydra", "rich"}),
        ("genopt.app.main", HEAVY | {"numpy"}),
        ("genopt.app.report", HEAVY),
        ("genopt.space", HEAVY - {"torch"}),
        ("genopt.problems", {"pandas", "sklearn", "matplotlib", "wandb", "pytorch_lightning"}),
        ("genopt.models.mixture", {"pandas", "sklearn", "matplotlib", "wandb", "hydra"}),
        ("genopt.analysis.plots", {"pandas", "sklearn", "matplotlib", "wandb", "hydra"}),
    ],
)
def test_an_import_is_as_light_as_it_can_be(module, absent):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert not set(done.stdout.split()) & absent


def test_no_file_holds_two_ideas():
    assert {
        path.relative_to(SOURCE).as_posix(): lines
        for path in FILES
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
    } == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_every_file_says_why_it_exists(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("name", [n for n in genopt.__all__ if n != "__version__"])
def test_a_public_name_is_there_and_says_what_it_is(name):
    value = getattr(genopt, name)
    assert value.__module__.startswith("genopt.")
    assert len(inspect.getdoc(value) or "") > 20
    assert value.__doc__, f"{name} inherits its docstring"
    assert name in dir(genopt)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Spcae'"):
        _ = genopt.Spcae


def test_nothing_but_the_screen_prints():
    prints = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not prints


def test_global_generators_are_seeded_only_behind_a_fork():
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"\bnp\.random\.(seed|rand|randn|normal|uniform|choice)\(", text), path
        if "torch.manual_seed" in text:
            assert text.count("torch.manual_seed") == text.count("fork_rng()"), path


def targets_of(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.yaml")):
        for target in re.findall(r"_target_:\s*(genopt\.\S+)", path.read_text()):
            yield path.relative_to(folder).as_posix(), target


@pytest.mark.parametrize(("file", "target"), list(targets_of(ROOT / "conf")))
def test_every_target_of_the_configuration_exists(file, target):
    module, _, name = target.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name)), file


def test_the_architecture_page_names_every_file_and_group():
    page = (ROOT / "docs" / "architecture.md").read_text()
    # each problem is a file of its own, which docs/problems.md tells of
    missing = [
        path.relative_to(SOURCE).as_posix()
        for path in FILES
        if path.name != "__init__.py"
        and path.parent.name != "problems"
        and not re.search(rf"\b{re.escape(path.name)}", page)
    ]
    assert not missing
    groups = {p.name for p in (ROOT / "conf").iterdir() if p.is_dir()} - {"hydra"}
    assert not [group for group in sorted(groups) if f"`{group}`" not in page]
    # and nothing that is not there
    named = set(re.findall(r"`([a-z_/]+\.py)`", page))
    there = [path.as_posix() for path in (*FILES, Path(__file__))]
    assert not [name for name in named if not any(path.endswith(name) for path in there)]
